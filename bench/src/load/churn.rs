//! Connections that come and go: each connects, makes its requests one after the other, and closes.

use super::{SILENCE_MAX, Slice};
use crate::stats::histogram;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use socket2::{Domain, Socket, Type};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

const EVENTS_MAX: usize = 256;
/// Connections that were closed keep their port for a minute, so they come from many addresses.
const SOURCES: u32 = 200;

/// `slots` connections at a time, each with a fixed number of requests.
pub struct Churn {
    server: SocketAddr,
    epoll: OwnedFd,
    requests: usize,
    message: Vec<u8>,
    guests: HashMap<u64, Guest>,
    number: u64,
}

struct Guest {
    socket: TcpStream,
    sent_at: Instant,
    /// Requests that are still to be made, and bytes of the answer that are missing.
    requests: usize,
    missing: usize,
}

/// A slice's figures: latency is that of a request, the first one's from the begin of its connection.
pub struct Churned {
    pub slice: Slice,
    pub connections: u64,
}

impl Churn {
    pub fn new(server: SocketAddr, requests: usize, bytes: usize) -> io::Result<Churn> {
        let message = (0..bytes).map(|at| b'a' + (at % 26) as u8).collect();
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Churn { server, epoll, requests, message, guests: HashMap::new(), number: 0 })
    }

    pub fn slice(&mut self, slots: usize, time: Duration) -> io::Result<Churned> {
        let begin = Instant::now();
        let mut connections = 0;
        let mut slice = Slice { messages: 0, time, latency: histogram(), late: histogram() };
        for _ in 0..slots {
            self.connect()?;
        }
        let silence = Timespec::try_from(SILENCE_MAX).map_err(io::Error::other)?;
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut buffer = vec![0; self.message.len()];
        while !self.guests.is_empty() {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&silence)) {
                Ok(0) => return Err(io::Error::other(format!("no answer for {SILENCE_MAX:?}"))),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let number = event.data.u64();
                let Some(guest) = self.guests.get_mut(&number) else { continue };
                let flags = event.flags;
                if flags.contains(EventFlags::OUT) {
                    // Connected, or not.
                    guest.socket.take_error()?.map_or(Ok(()), Err)?;
                    epoll::modify(&self.epoll, &guest.socket, EventData::new_u64(number), EventFlags::IN)?;
                    guest.request(&self.message)?;
                    continue;
                }
                match guest.socket.read(&mut buffer) {
                    Ok(0) => return Err(io::Error::other("the server closed a connection")),
                    Ok(bytes) => {
                        let from = self.message.len() - guest.missing;
                        if bytes > guest.missing || buffer[..bytes] != self.message[from..from + bytes] {
                            return Err(io::Error::other("the answer is not what was sent"));
                        }
                        guest.missing -= bytes;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error),
                }
                if guest.missing > 0 {
                    continue;
                }
                slice.messages += 1;
                let _ = slice.latency.record(guest.sent_at.elapsed().as_nanos() as u64);
                if guest.requests > 0 {
                    guest.sent_at = Instant::now();
                    guest.request(&self.message)?;
                    continue;
                }
                self.guests.remove(&number);
                connections += 1;
                slice.time = begin.elapsed();
                if slice.time < time {
                    self.connect()?;
                }
            }
        }
        Ok(Churned { slice, connections })
    }

    fn connect(&mut self) -> io::Result<()> {
        self.number += 1;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        // The port is chosen when the whole connection is known.
        bind_address_only(&socket)?;
        let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + (self.number as u32 % SOURCES));
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        let sent_at = Instant::now();
        match socket.connect(&self.server.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                return Err(error);
            }
            _ => {}
        }
        let socket = TcpStream::from(socket);
        epoll::add(&self.epoll, &socket, EventData::new_u64(self.number), EventFlags::OUT)?;
        self.guests.insert(self.number, Guest { socket, sent_at, requests: self.requests, missing: 0 });
        Ok(())
    }
}

#[allow(unsafe_code)]
fn bind_address_only(socket: &Socket) -> io::Result<()> {
    let on = std::ptr::from_ref(&1_i32).cast();
    // SAFETY: the value is an int that lives for the length of the call, and the socket is open.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, on, 4) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Guest {
    fn request(&mut self, message: &[u8]) -> io::Result<()> {
        self.requests -= 1;
        self.missing = message.len();
        self.socket.write_all(message)
    }
}
