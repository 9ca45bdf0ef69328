//! Listeners, and threads that each have one of their own on the same port (SO_REUSEPORT): the system spreads the
//! connections over them.

use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Barrier;

/// As many connections may wait to be accepted as the system allows by default (net.core.somaxconn).
const BACKLOG: i32 = 4096;

/// A listener that blocks no accept.
pub fn listener() -> io::Result<(SocketAddr, TcpListener)> {
    let listener = listening(bound(0, false)?)?;
    Ok((listener.local_addr()?, listener))
}

fn listening(socket: Socket) -> io::Result<TcpListener> {
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

/// A port for threads that each bind a listener of their own there.
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

    /// A listener of this thread, which blocks no accept.
    pub fn bind(&self) -> io::Result<TcpListener> {
        listening(bound(self.address.port(), true)?)
    }

    /// For runtimes that bind their own, with SO_REUSEPORT.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// This thread can serve. The last one tells the world.
    pub fn ready(&self) -> io::Result<()> {
        if self.threads.wait().is_leader() { crate::announce(self.address) } else { Ok(()) }
    }
}
