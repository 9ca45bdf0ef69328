//! The running server: its packets, how connections begin, and how it ends.

use super::clock;
use super::connection::{Connection, Port, Purpose};
use super::shared::Shared;
use crate::serving::{self, SHUTDOWN};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use wharf::net::{Acceptor, Incoming, Permit};
use wharf::{Packet, WorkerPool};

/// Said to a connection too many.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n";
/// When the server ends, a connection that has just been made has so long for its first request.
const FIRST_REQUEST_MS: u64 = 500;
/// How often connections that wait for a request are closed, when the server ends.
const DRAIN_LOOK: Duration = Duration::from_millis(10);

/// What handles the packets.
#[derive(Clone, Debug)]
pub struct Handler {
    pub port: Port,
    pub acceptor: Acceptor<(), Purpose>,
    pub shared: Arc<Shared>,
}

/// A server that is running.
pub struct Running {
    handler: Handler,
    pool: WorkerPool,
    /// When it has to have ended.
    until: OnceLock<Instant>,
    /// Connections that had not ended by then.
    cut: AtomicUsize,
}

/// Totals at one moment.
pub struct Figures {
    open: usize,
    requests: u64,
    bytes: u64,
}

impl Handler {
    pub fn handle(&self, packet: Packet<(), Purpose>) {
        if let Purpose::Accept = packet.context {
            return match self.acceptor.completed(packet.event) {
                Some(Incoming::Admitted { socket, peer, permit }) => self.admitted(socket, peer, permit),
                Some(Incoming::Refused { socket, peer }) => self.refused(socket, peer),
                _ => {}
            };
        }
        if let Some((mut connection, stream)) = Connection::after(packet) {
            connection.new_turn();
            connection.go_on(stream);
        }
    }

    fn admitted(&self, socket: TcpStream, peer: SocketAddr, permit: Permit) {
        // An answer leaves in one piece, and nothing is gained by holding its end back.
        let _ = socket.set_nodelay(true);
        let stream = match self.port.associate_accepted(socket, ()) {
            Ok(stream) => stream,
            Err(rejected) => return log::warn!("{peer} cannot be served: {}", rejected.error),
        };
        self.shared.totals.accepted.fetch_add(1, Relaxed);
        stream.skip_on_success();
        Connection::new(&self.port, &self.shared, permit, peer.ip(), &stream).go_on(stream);
    }

    fn refused(&self, mut socket: TcpStream, peer: SocketAddr) {
        self.shared.totals.refused.fetch_add(1, Relaxed);
        log::info!("{peer} is refused: as many connections are open as --max-sessions allows");
        // A new socket has space for it; who has sent much already may miss it.
        let _ = socket.write(FULL);
    }
}

impl Running {
    pub fn new(handler: Handler, pool: WorkerPool) -> Running {
        Running { handler, pool, until: OnceLock::new(), cut: AtomicUsize::new(0) }
    }
}

impl serving::Server for Running {
    type Totals = Figures;

    fn totals(&self) -> Figures {
        let totals = &self.handler.shared.totals;
        Figures {
            open: self.handler.acceptor.open(),
            requests: totals.requests.load(Relaxed),
            bytes: totals.bytes.load(Relaxed),
        }
    }

    fn figures(before: &Figures, now: &Figures, seconds: f64) -> String {
        let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        format!(
            "connections {}  requests/s {:.0}  sent {:.0} B/s  requests {}",
            now.open,
            per_second(now.requests, before.requests),
            per_second(now.bytes, before.bytes),
            now.requests,
        )
    }

    /// Deadlines that are over.
    fn tick(&self) {
        self.handler.shared.deadlines.sweep(clock::milliseconds(), None);
    }

    /// Who waits for a request is closed, who is being answered is answered, and who was just accepted, too.
    fn drain(&self, most: Duration) -> usize {
        let Handler { acceptor, shared, .. } = &self.handler;
        let until = *self.until.get_or_init(|| Instant::now() + most);
        acceptor.stop();
        shared.stopping.store(true, Relaxed);
        let left = loop {
            let now = clock::milliseconds();
            let first_until = (now + shared.header_timeout_ms).saturating_sub(FIRST_REQUEST_MS);
            shared.deadlines.sweep(now, Some(first_until));
            let left = acceptor.wait(DRAIN_LOOK);
            if left == 0 || Instant::now() >= until {
                break left;
            }
        };
        self.cut.store(left, Relaxed);
        left
    }

    fn end(self) -> String {
        let Handler { port, shared, .. } = &self.handler;
        port.close();
        // A worker that waits for a disk is not waited for.
        let left = self.until.get().map_or(SHUTDOWN, |until| until.saturating_duration_since(Instant::now()));
        self.pool.shutdown(left.max(DRAIN_LOOK));
        let totals = &shared.totals;
        log::info!("{totals:?}");
        let cut = self.cut.load(Relaxed);
        format!(
            "ended: {} requests on {} connections, {} bytes sent, {} too late, {} refused{}",
            totals.requests.load(Relaxed),
            totals.accepted.load(Relaxed),
            totals.bytes.load(Relaxed),
            totals.late.load(Relaxed),
            totals.refused.load(Relaxed),
            if cut > 0 { format!(", {cut} connections cut off") } else { String::new() },
        )
    }
}
