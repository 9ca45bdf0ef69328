//! mio: a loop around its `Poll`, whose readiness is edge-triggered on every system: so a socket is read until it says
//! that it would block, as its documentation asks, which is one read more for each event than epoll itself needs.
//! With several workers, each has its own loop and its own listener on the same port.

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use peers::{BUFFER_BYTES, Connection, Options, Place, Progress, on_threads};
use slab::Slab;
use std::io;
use std::sync::Arc;

const EVENTS_MAX: usize = 1024;
const LISTENER: Token = Token(usize::MAX);

fn main() -> io::Result<()> {
    let options = Options::parse(&["echo"]);
    let place = Arc::new(Place::new(options.workers())?);
    let each = (0..options.workers()).map(|_| (place.clone(), options.clone())).collect();
    on_threads(each, |(place, options)| serve(&place, &options))
}

fn serve(place: &Place, options: &Options) -> io::Result<()> {
    let mut listener = TcpListener::from_std(place.bind()?);
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(EVENTS_MAX);
    let mut connections: Slab<Connection<TcpStream>> = Slab::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    place.ready()?;
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut socket, _)) = listener.accept() {
                    socket.set_nodelay(true)?;
                    let place = connections.vacant_entry();
                    let both = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut socket, Token(place.key()), both)?;
                    place.insert(Connection::new(socket, options));
                }
                continue;
            }
            let Some(connection) = connections.get_mut(event.token().0) else { continue };
            let open = loop {
                match connection.step(&mut buffer) {
                    Ok(Some(Progress::Filled | Progress::Short)) => {}
                    Ok(Some(Progress::Nothing | Progress::Stuck)) => break true,
                    Ok(None) | Err(_) => break false,
                }
            };
            if !open {
                connections.remove(event.token().0);
            }
        }
    }
}
