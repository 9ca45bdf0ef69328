//! A bare loop around `poll(2)`: one thread, whatever `--workers` says. The kernel looks at every descriptor each time.

use peers::{BUFFER_BYTES, Connection, Options, Progress};
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};

fn watch(descriptor: RawFd) -> libc::pollfd {
    libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 }
}

fn main() -> io::Result<()> {
    let options = Options::parse(&["echo"]);
    let (address, listener) = peers::listener()?;
    // The listener stands first, and the connections are one place behind what is watched.
    let mut watched = vec![watch(listener.as_raw_fd())];
    let mut connections: Vec<Connection<TcpStream>> = Vec::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    peers::announce(address)?;
    loop {
        // SAFETY: that many entries are there, and nobody else uses them meanwhile.
        let mut ready = unsafe { libc::poll(watched.as_mut_ptr(), watched.len() as libc::nfds_t, -1) };
        if ready < 0 {
            return Err(io::Error::last_os_error());
        }
        let accepting = watched[0].revents != 0;
        ready -= i32::from(accepting);
        let mut at = 0;
        while ready > 0 {
            if watched[at + 1].revents == 0 {
                at += 1;
                continue;
            }
            ready -= 1;
            match connections[at].step(&mut buffer) {
                Ok(Some(progress)) => {
                    let stuck = progress == Progress::Stuck;
                    watched[at + 1].events = if stuck { libc::POLLOUT } else { libc::POLLIN };
                    at += 1;
                }
                // The last one moves to this place, and is looked at next.
                Ok(None) | Err(_) => {
                    connections.swap_remove(at);
                    watched.swap_remove(at + 1);
                }
            }
        }
        while accepting && let Ok((socket, _)) = listener.accept() {
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            watched.push(watch(socket.as_raw_fd()));
            connections.push(Connection::new(socket, &options));
        }
    }
}
