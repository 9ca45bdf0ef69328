//! A bare loop around epoll, edge-triggered: a read that leaves room in the buffer shows that the socket is empty, so a
//! message costs one read, one write, and its share of an `epoll_wait`. Level-triggered, the kernel looks at each
//! socket once more before it sleeps.
//!
//! With several workers there are as many loops, and a thread that accepts deals the connections out in turn.

use peers::{BUFFER_BYTES, Connection, Options, Progress};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};

/// How many events one `epoll_wait` brings at most.
const EVENTS_MAX: usize = 1024;

/// The listener, where others have a descriptor.
const LISTENER: u64 = u64::MAX;

fn main() -> io::Result<()> {
    // Both are there as long as the program.
    let options: &Options = Box::leak(Box::new(Options::parse(&["echo", "spin"])));
    let (address, listener) = peers::listener()?;
    let create = |_| Ok(epoll::create(CreateFlags::CLOEXEC)?);
    let loops: &[OwnedFd] = (0..options.workers()).map(create).collect::<io::Result<Vec<_>>>()?.leak();
    if let [only] = loops {
        epoll::add(only, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        peers::announce(address)?;
        return serve(only, Some(&listener), options);
    }
    listener.set_nonblocking(false)?;
    std::thread::Builder::new()
        .spawn(move || peers::on_threads(loops.iter().collect(), move |epoll| serve(epoll, None, options)))?;
    peers::announce(address)?;
    for next in loops.iter().cycle() {
        let (socket, _) = listener.accept()?;
        adopt(next, socket)?;
    }
    Ok(())
}

/// From now on the descriptor is that loop's, which takes it over at its first event.
fn adopt(epoll: &OwnedFd, socket: TcpStream) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.set_nodelay(true)?;
    let raw = socket.into_raw_fd();
    // SAFETY: the descriptor is open, and nobody else closes it before its first event.
    let socket = unsafe { std::os::fd::BorrowedFd::borrow_raw(raw) };
    let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
    Ok(epoll::add(epoll, socket, EventData::new_u64(raw as u64), flags)?)
}

fn serve(epoll: &OwnedFd, listener: Option<&TcpListener>, options: &Options) -> io::Result<()> {
    let mut connections: Vec<Option<Connection<TcpStream>>> = Vec::new();
    let mut events = Vec::with_capacity(EVENTS_MAX);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        events.clear();
        match epoll::wait(epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let (data, flags) = (event.data.u64(), event.flags);
            if data == LISTENER {
                while let Some(Ok((socket, _))) = listener.map(TcpListener::accept) {
                    adopt(epoll, socket)?;
                }
                continue;
            }
            let at = data as usize;
            if at >= connections.len() {
                connections.resize_with(at + 1, || None);
            }
            let connection = connections[at].get_or_insert_with(|| {
                // SAFETY: `adopt` gave the descriptor to this loop, which hears of it for the first time.
                Connection::new(unsafe { TcpStream::from_raw_fd(data as RawFd) }, options)
            });
            // With a hang-up the end is there already, and no further edge will come for it.
            let ending = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
            let open = loop {
                match connection.step(&mut buffer) {
                    Ok(Some(Progress::Filled)) => {}
                    Ok(Some(Progress::Short)) if ending => {}
                    Ok(Some(_)) => break true,
                    Ok(None) | Err(_) => break false,
                }
            };
            if !open {
                connections[at] = None;
            }
        }
    }
}
