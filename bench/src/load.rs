//! The load generator: one thread, level-triggered epoll, closed loop. It is connected to all servers at once and loads
//! one at a time, so that they are measured in turns, on the same machine in the same state.

use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// The connections to one server.
pub struct Load {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    message: Vec<u8>,
}

struct Connection {
    socket: TcpStream,
    /// Bytes of the echo still to come; 0: idle.
    missing: usize,
    sent_at: Instant,
}

/// What a slice came to.
pub struct Slice {
    pub messages: u64,
    pub time: Duration,
    pub latency: Histogram<u64>,
}

impl Load {
    pub fn connect(server: SocketAddr, connections: usize, bytes: usize) -> io::Result<Load> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let connections = (0..connections)
            .map(|number| {
                let socket = TcpStream::connect(server)?;
                socket.set_nodelay(true)?;
                socket.set_nonblocking(true)?;
                epoll::add(&epoll, &socket, EventData::new_u64(number as u64), EventFlags::IN)?;
                Ok(Connection { socket, missing: 0, sent_at: Instant::now() })
            })
            .collect::<io::Result<_>>()?;
        Ok(Load { epoll, connections, message: vec![b'x'; bytes] })
    }

    /// Every connection sends, waits for the echo and sends again, for `time`; then what is on its way is waited for.
    pub fn slice(&mut self, time: Duration) -> io::Result<Slice> {
        let mut latency = Histogram::new(3).expect("three digits");
        let mut messages = 0;
        let begin = Instant::now();
        let mut outstanding = 0usize;
        for connection in &mut self.connections {
            connection.send(&self.message)?;
            outstanding += 1;
        }
        let mut buffer = vec![0; 64 * 1024];
        let mut events = Vec::with_capacity(256);
        while outstanding > 0 {
            events.clear();
            if epoll::wait(&self.epoll, spare_capacity(&mut events), None).is_err() {
                continue;
            }
            let go_on = begin.elapsed() < time;
            for event in &events {
                let connection = &mut self.connections[event.data.u64() as usize];
                match connection.socket.read(&mut buffer) {
                    Ok(0) => return Err(io::Error::other("the server closed a connection")),
                    Ok(bytes) => connection.missing = connection.missing.saturating_sub(bytes),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error),
                }
                if connection.missing == 0 {
                    messages += 1;
                    let _ = latency.record(connection.sent_at.elapsed().as_nanos() as u64);
                    if go_on {
                        connection.send(&self.message)?;
                    } else {
                        outstanding -= 1;
                    }
                }
            }
        }
        Ok(Slice { messages, time: begin.elapsed(), latency })
    }

    /// One message at a time, `rate` a second.
    pub fn trickle(&mut self, rate: f64, time: Duration) -> io::Result<u64> {
        let begin = Instant::now();
        let connection = &mut self.connections[0];
        connection.socket.set_nonblocking(false)?;
        let mut messages = 0;
        let mut answer = vec![0; self.message.len()];
        while begin.elapsed() < time {
            connection.socket.write_all(&self.message)?;
            connection.socket.read_exact(&mut answer)?;
            messages += 1;
            let next = begin + Duration::from_secs_f64(messages as f64 / rate);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        connection.socket.set_nonblocking(true)?;
        Ok(messages)
    }
}

impl Connection {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.sent_at = Instant::now();
        self.missing = message.len();
        // Small enough for an empty socket buffer: the echo of the last one has arrived.
        self.socket.write_all(message)
    }
}
