//! Where a server listens: at an address, on a Unix socket, or on the sockets that it was started with.

use crate::address::{NO_TLS, UNIX, cannot_listen, resolve};
use crate::system;
use crate::tls::Acceptor;
use std::io;
use wharf::net::Acceptor as PortAcceptor;
use wharf::{CompletionPort, Context, Listener};
use wharf_session::{Inherited, InheritedSocket, Service, Session, inherited};

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

/// Has a port's acceptor listen, and tells where: on the sockets that the program was started with, or else at the
/// address. `place`: where another address can be given. TCP only.
pub fn on_port<C: Context>(
    port: &CompletionPort<(), C>,
    acceptor: &PortAcceptor<(), C>,
    address: &str,
    place: &str,
) -> Result<Vec<String>, String> {
    let mut listeners = Vec::new();
    let given = given()?;
    if given.is_empty() {
        listeners.push(one_on_port(port, address, place)?);
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
    let mut places = Vec::new();
    for listener in listeners {
        let address = listener.local_addr().map_err(|error| format!("a listener's address is unknown: {error}"))?;
        acceptor.listen(listener).map_err(|error| format!("nothing can be accepted: {error}"))?;
        places.push(address.to_string());
    }
    Ok(places)
}

fn one_on_port<C: Context>(
    port: &CompletionPort<(), C>,
    address: &str,
    place: &str,
) -> Result<Listener<(), C>, String> {
    if address.starts_with(UNIX) {
        return Err(format!("{address}: this serves TCP only; give ADDRESS:PORT, such as 127.0.0.1:8000{place}"));
    }
    let addresses = resolve(address, "listen on")?;
    port.listen(&addresses[..], ()).map_err(|error| cannot_listen(address, &error, place))
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
