//! What all connections share, and how they begin.

use super::access_log::AccessLog;
use super::answer::Site;
use super::connection::{Connection, Port, Purpose};
use super::deadlines::Deadlines;
use crate::listen::next_accept;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use wharf::{Event, Packet, TcpListener};

/// Said to a connection too many.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n";

#[derive(Debug)]
pub struct Server {
    pub port: Port,
    pub site: Site,
    pub deadlines: Deadlines,
    pub totals: Totals,
    pub access_log: Option<AccessLog>,
    /// No request is waited for any more.
    pub stopping: AtomicBool,
    pub connections_max: usize,
    pub header_timeout_ms: u64,
    pub idle_timeout_ms: u64,
    pub send_timeout_ms: u64,
}

#[derive(Debug, Default)]
pub struct Totals {
    pub open: AtomicUsize,
    pub accepted: AtomicU64,
    /// Connections too many.
    pub refused: AtomicU64,
    /// Requests that were answered, in whatever way.
    pub requests: AtomicU64,
    /// Of these: took too long to arrive.
    pub late: AtomicU64,
    /// Sent, heads included.
    pub bytes: AtomicU64,
}

impl Server {
    pub fn handle(self: &Arc<Self>, packet: Packet<(), Purpose>) {
        if let Event::Accepted { listener, result } = packet.event {
            return self.accepted(&listener, result);
        }
        if let (Event::Elapsed { .. }, Purpose::Rested(listener)) = (&packet.event, &packet.context) {
            return self.listen_again(listener);
        }
        if let Some((mut connection, stream)) = Connection::after(packet) {
            connection.new_turn();
            connection.go_on(stream);
        }
    }

    pub fn log(&self, line: Vec<u8>) {
        if let Some(log) = &self.access_log {
            log.add(line);
        }
    }

    fn listen_again(&self, listener: &TcpListener<(), Purpose>) {
        if !self.stopping.load(Relaxed) {
            let _ = listener.accept(Purpose::Accept);
        }
    }

    fn accepted(self: &Arc<Self>, listener: &TcpListener<(), Purpose>, result: io::Result<(TcpStream, SocketAddr)>) {
        if self.stopping.load(Relaxed) && result.is_err() {
            return;
        }
        let next = next_accept(&self.port, listener, result, Purpose::Accept, Purpose::Rested);
        let Some((mut socket, peer)) = next else { return };
        let totals = &self.totals;
        if totals.open.fetch_add(1, Relaxed) >= self.connections_max {
            totals.open.fetch_sub(1, Relaxed);
            totals.refused.fetch_add(1, Relaxed);
            log::info!("{peer} is refused: as many connections are open as --max-sessions allows");
            // A new socket has space for it; who has sent much already may miss it.
            let _ = socket.write(FULL);
            return;
        }
        // An answer leaves in one piece, and nothing is gained by holding its end back.
        let _ = socket.set_nodelay(true);
        let stream = match self.port.associate(socket, ()) {
            Ok(stream) => stream,
            Err(rejected) => {
                totals.open.fetch_sub(1, Relaxed);
                return log::warn!("{peer} cannot be served: {}", rejected.error);
            }
        };
        totals.accepted.fetch_add(1, Relaxed);
        stream.skip_on_success();
        Connection::new(self.clone(), peer.ip(), &stream).go_on(stream);
    }
}
