//! A bare loop around `select(2)`: one thread, whatever `--workers` says. A set has room for the descriptors below 1024
//! (FD_SETSIZE), of which some are ours: a connection with a higher one is closed at once, and that is said once.

use peers::{BUFFER_BYTES, Connection, Options, Progress};
use std::io;
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::null_mut;

#[derive(Clone, Copy)]
struct Set(libc::fd_set);

impl Set {
    fn new() -> Set {
        let mut set = MaybeUninit::uninit();
        // SAFETY: FD_ZERO makes the whole of it.
        unsafe {
            libc::FD_ZERO(set.as_mut_ptr());
            Set(set.assume_init())
        }
    }

    fn put(&mut self, descriptor: RawFd, there: bool) {
        assert!((0..libc::FD_SETSIZE as RawFd).contains(&descriptor));
        // SAFETY: the set has a bit for it.
        unsafe { if there { libc::FD_SET(descriptor, &mut self.0) } else { libc::FD_CLR(descriptor, &mut self.0) } }
    }

    fn has(&self, descriptor: RawFd) -> bool {
        // SAFETY: only descriptors that were put there are asked for.
        unsafe { libc::FD_ISSET(descriptor, &self.0) }
    }
}

fn main() -> io::Result<()> {
    let options = Options::parse(&["echo"]);
    let (address, listener) = peers::listener()?;
    let (mut readers, mut writers) = (Set::new(), Set::new());
    readers.put(listener.as_raw_fd(), true);
    // By descriptor.
    let mut connections: [Option<Connection<TcpStream>>; libc::FD_SETSIZE] = [const { None }; libc::FD_SETSIZE];
    let mut highest = listener.as_raw_fd();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut said = false;
    peers::announce(address)?;
    loop {
        let (mut readable, mut writable) = (readers, writers);
        // SAFETY: both sets are there, and all that is in them is at most `highest`.
        let ready = unsafe { libc::select(highest + 1, &mut readable.0, &mut writable.0, null_mut(), null_mut()) };
        if ready < 0 {
            return Err(io::Error::last_os_error());
        }
        for descriptor in 0..=highest {
            if !readable.has(descriptor) && !writable.has(descriptor) {
                continue;
            }
            let Some(connection) = &mut connections[descriptor as usize] else { continue };
            let progress = connection.step(&mut buffer).ok().flatten();
            readers.put(descriptor, progress.is_some_and(|progress| progress != Progress::Stuck));
            writers.put(descriptor, progress == Some(Progress::Stuck));
            if progress.is_none() {
                connections[descriptor as usize] = None;
            }
        }
        while readable.has(listener.as_raw_fd())
            && let Ok((socket, _)) = listener.accept()
        {
            let descriptor = socket.as_raw_fd();
            if descriptor as usize >= libc::FD_SETSIZE {
                if !std::mem::replace(&mut said, true) {
                    eprintln!("select: more than {} descriptors: closed", libc::FD_SETSIZE);
                }
                continue;
            }
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            highest = highest.max(descriptor);
            readers.put(descriptor, true);
            connections[descriptor as usize] = Some(Connection::new(socket, &options));
        }
    }
}
