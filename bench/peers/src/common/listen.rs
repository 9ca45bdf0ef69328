//! Listeners for the programs that have a loop of their own in each thread.

use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Barrier;

/// As many connections may wait to be accepted as the system allows by default (net.core.somaxconn).
const BACKLOG: i32 = 4096;

/// So many listeners on one port, which blocks no accept: the system spreads the connections over them
/// (SO_REUSEPORT).
pub fn listeners(count: usize) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    let first = listener(0, count > 1)?;
    let address = first.local_addr()?;
    let mut all = vec![first];
    for _ in 1..count {
        all.push(listener(address.port(), true)?);
    }
    Ok((address, all))
}

fn listener(port: u16, shared: bool) -> io::Result<TcpListener> {
    let socket = bound(port, shared)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn bound(port: u16, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    Ok(socket)
}

/// One thread for each, this one among them. It returns when a thread fails.
pub fn on_threads<T: Send + 'static>(
    each: Vec<T>,
    serve: impl Fn(T) -> io::Result<()> + Copy + Send + 'static,
) -> io::Result<()> {
    let mut each = each.into_iter();
    let own = each.next();
    for one in each {
        std::thread::Builder::new().spawn(move || {
            if let Err(error) = serve(one) {
                eprintln!("{error}");
                std::process::exit(1);
            }
        })?;
    }
    own.map_or(Ok(()), serve)
}

/// A port for the runtimes that run once in each thread and bind a listener of their own there.
pub struct Place {
    address: SocketAddr,
    /// Bound, and not listening: it only keeps the port ours.
    _holder: Socket,
    threads: Barrier,
}

impl Place {
    pub fn new(threads: usize) -> io::Result<Place> {
        let holder = bound(0, true)?;
        let address = holder.local_addr()?.as_socket().ok_or_else(|| io::Error::other("no address"))?;
        Ok(Place { address, _holder: holder, threads: Barrier::new(threads) })
    }

    /// What each thread binds, with SO_REUSEPORT.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// This thread has bound its listener. The last one tells the world.
    pub fn listening(&self) -> io::Result<()> {
        if self.threads.wait().is_leader() { crate::announce(self.address) } else { Ok(()) }
    }
}
