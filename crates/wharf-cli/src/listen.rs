//! Where a server listens: at an address, on a Unix socket, or on the sockets that it was started with.

use crate::serve::{cannot_listen, resolve};
use crate::tls::Acceptor;
use std::io;
use wharf::session::{InheritedSocket, Service, Session, inherited};

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
    let given = inherited().map_err(|error| format!("the inherited sockets cannot be used: {error}"))?;
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
            InheritedSocket::Local(_) if acceptor.is_tls() => return Err(NO_TLS.into()),
            InheritedSocket::Local(listener) => {
                let place = listener.local_addr().map_or_else(|_| UNIX.to_owned(), |address| name(&address));
                service.adopt_local_listener(listener, move |_| session()).map(|()| place)
            }
            other => Err(io::Error::other(format!("{other:?} is not known here"))),
        };
        let place = place.map_err(|error| format!("an inherited socket cannot be listened on: {error}"))?;
        log::info!("the socket {:?} at {place} was inherited; --listen is not used", socket.name);
        places.push(place);
    }
    Ok(places)
}

fn name(address: &std::os::unix::net::SocketAddr) -> String {
    use std::os::linux::net::SocketAddrExt;
    match (address.as_pathname(), address.as_abstract_name()) {
        (Some(path), _) => format!("{UNIX}{}", path.display()),
        (_, Some(name)) => format!("{UNIX}@{}", name.escape_ascii()),
        _ => UNIX.to_owned(),
    }
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
                io::ErrorKind::AlreadyExists | io::ErrorKind::InvalidInput => "",
                _ => "; choose another path with --listen",
            };
            Err(format!("cannot listen on {address}: {error}{remedy}"))
        }
    }
}
