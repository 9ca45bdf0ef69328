//! Where a server listens: at an address, on a Unix socket, or on the sockets that it was started with.

use crate::serve::{cannot_listen, resolve};
use crate::system;
use crate::tls::Acceptor;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use wharf::error::ErrorExt;
use wharf::session::{Inherited, InheritedSocket, Service, Session, inherited};
use wharf::{CompletionPort, Context, TcpListener};

/// What an address begins with that is the path of a Unix socket.
pub const UNIX: &str = "unix:";

/// It never leaves the machine.
pub const NO_TLS: &str = "a Unix socket has no use for TLS; leave out what begins with --tls";

/// Listens, and tells where, as words for people and scripts. Sockets that the program was started with (systemd's
/// `LISTEN_FDS`) go before the address: whoever passes them on has decided where the server listens.
pub fn listen<S: Session>(
    service: &Service,
    address: &str,
    acceptor: &Acceptor,
    session: impl Fn() -> S + Clone + Send + Sync + 'static,
) -> Result<Vec<String>, String> {
    let given = given()?;
    if given.is_empty() {
        return at(service, address, acceptor, session).map(|place| vec![place]);
    }
    let mut places = Vec::new();
    for socket in given {
        let session = session.clone();
        let place = match socket.socket {
            InheritedSocket::Tcp(listener) => {
                acceptor.adopt_listener(service, listener, session).map(|address| address.to_string())
            }
            _ if acceptor.is_tls() => return Err(NO_TLS.into()),
            other => system::adopt(service, other, session),
        };
        let place = place.map_err(|error| format!("an inherited socket cannot be listened on: {error}"))?;
        log::info!("the socket {:?} at {place} was inherited; --listen is not used", socket.name);
        places.push(place);
    }
    Ok(places)
}

/// How long an accept that failed rests before the next is issued in its place.
const REST: Duration = Duration::from_millis(100);

/// The packet of an accept was taken: issues the next one, at once, or after a failure, which may stay, when it has rested
/// (`later` is the context of the timer). A socket that listens no more takes none.
pub fn next_accept<C: Context, T>(
    port: &CompletionPort<(), C>,
    listener: &TcpListener<(), C>,
    result: io::Result<T>,
    accept: C,
    later: impl FnOnce(TcpListener<(), C>) -> C,
) -> Option<T> {
    static FAILED: AtomicBool = AtomicBool::new(false);
    match result {
        Ok(connection) => {
            FAILED.store(false, Ordering::Relaxed);
            let _ = listener.accept(accept);
            Some(connection)
        }
        // It was closed here.
        Err(error) if error.is_aborted() => None,
        Err(error) => {
            if !FAILED.swap(true, Ordering::Relaxed) {
                log::error!(
                    "no connection can be taken: {error}; it is tried again every 0.1 s while the socket listens"
                );
            }
            let _ = port.timer(REST, (), later(listener.clone()));
            None
        }
    }
}

/// A listener, and where it listens.
pub type Listening<C> = (TcpListener<(), C>, SocketAddr);

/// A port's listeners, and where they listen: those that the program was started with, or else one at the address. `place`:
/// where another address can be given. TCP only.
pub fn on_port<C: Context>(
    port: &CompletionPort<(), C>,
    address: &str,
    place: &str,
) -> Result<Vec<Listening<C>>, String> {
    let given = given()?;
    let mut listeners = Vec::new();
    if given.is_empty() {
        if address.starts_with(UNIX) {
            return Err(format!("{address}: this serves TCP only; give ADDRESS:PORT, such as 127.0.0.1:8000{place}"));
        }
        let addresses = resolve(address, "listen on")?;
        let listener = port.listen(&addresses[..], ());
        listeners.push(listener.map_err(|error| cannot_listen(address, &error, place))?);
    }
    for socket in given {
        let InheritedSocket::Tcp(listener) = socket.socket else {
            return Err(format!("the inherited socket {:?} is no TCP socket; pass on one that is", socket.name));
        };
        let listener = port.associate(listener, ());
        let listener =
            listener.map_err(|rejected| format!("an inherited socket cannot be listened on: {}", rejected.error))?;
        log::info!("the socket {:?} was inherited; the address {address} is not used", socket.name);
        listeners.push(listener);
    }
    let with_address = |listener: TcpListener<(), C>| {
        let address = listener.local_addr().map_err(|error| format!("a listener's address is unknown: {error}"))?;
        Ok((listener, address))
    };
    listeners.into_iter().map(with_address).collect()
}

fn given() -> Result<Vec<Inherited>, String> {
    inherited().map_err(|error| format!("the inherited sockets cannot be used: {error}"))
}

fn at<S: Session>(
    service: &Service,
    address: &str,
    acceptor: &Acceptor,
    session: impl Fn() -> S + Send + Sync + 'static,
) -> Result<String, String> {
    let Some(path) = address.strip_prefix(UNIX) else {
        let addresses = resolve(address, "listen on")?;
        let listening = acceptor.listen(service, &addresses, session);
        return match listening {
            Ok(address) => Ok(address.to_string()),
            Err(error) => Err(cannot_listen(address, &error, " with --listen")),
        };
    };
    if acceptor.is_tls() {
        return Err(NO_TLS.into());
    }
    match service.listen_local(path, move |_| session()) {
        Ok(()) => Ok(address.to_owned()),
        Err(error) => {
            let remedy = match error.kind() {
                io::ErrorKind::AddrInUse => "; another program listens there; end it, or choose another path",
                io::ErrorKind::NotFound => "; is there such a directory?",
                io::ErrorKind::PermissionDenied => "; choose a directory that you may write to",
                // These say what to do.
                io::ErrorKind::AlreadyExists | io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => "",
                _ => "; choose another path with --listen",
            };
            Err(format!("cannot listen on {address}: {error}{remedy}"))
        }
    }
}
