//! Who is at the other end.

use std::fmt;
use std::net::SocketAddr;
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

/// The other end of a session: an internet address, or a process of this machine.
///
/// It prints as what it is, and compares with a [`SocketAddr`].
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// A TCP connection's other address.
    Tcp(SocketAddr),
    /// The other end of a Unix socket.
    Local(LocalPeer),
}

/// The other end of a Unix socket.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct LocalPeer(Arc<Who>);

#[derive(Default, PartialEq, Eq, Hash)]
struct Who {
    name: Option<Name>,
    credentials: Option<Credentials>,
}

#[derive(PartialEq, Eq, Hash)]
#[cfg_attr(windows, allow(dead_code, reason = "no socket of the machine's own completes into a port there"))]
enum Name {
    Path(Box<Path>),
    Abstract(Box<[u8]>),
}

/// Who a process was when it connected, or began to listen. The kernel says so, not the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Credentials {
    /// Its process number. It may have ended since, and the number may be another's now.
    pub process: u32,
    /// Its effective user.
    pub user: u32,
    /// Its effective group.
    pub group: u32,
}

impl Peer {
    /// The address, if it is a TCP connection.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Peer::Tcp(address) => Some(*address),
            Peer::Local(_) => None,
        }
    }

    /// The process, if it is of this machine, by a Unix socket.
    pub fn local(&self) -> Option<&LocalPeer> {
        match self {
            Peer::Tcp(_) => None,
            Peer::Local(peer) => Some(peer),
        }
    }
}

impl LocalPeer {
    #[cfg(unix)]
    pub(super) fn of(socket: &UnixStream) -> LocalPeer {
        let name = socket.peer_addr().ok().and_then(|address| {
            let path = address.as_pathname().map(|path| Name::Path(path.into()));
            path.or_else(|| crate::sys::abstract_name_of(&address).map(|name| Name::Abstract(name.into())))
        });
        let who = crate::sys::credentials(socket);
        let credentials = who.map(|[process, user, group]| Credentials { process, user, group });
        LocalPeer(Arc::new(Who { name, credentials }))
    }

    /// Where its socket lies, if it has a path: that of the server for who connected, and rarely any for who was
    /// accepted.
    pub fn path(&self) -> Option<&Path> {
        match &self.0.name {
            Some(Name::Path(path)) => Some(path),
            _ => None,
        }
    }

    /// The abstract name of its socket, without the zero byte before it, if it has one.
    pub fn abstract_name(&self) -> Option<&[u8]> {
        match &self.0.name {
            Some(Name::Abstract(name)) => Some(name),
            _ => None,
        }
    }

    /// Who it is, as far as the kernel tells: a process in another PID namespace has no number here.
    pub fn credentials(&self) -> Option<Credentials> {
        self.0.credentials
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Peer {
        Peer::Tcp(address)
    }
}

impl PartialEq<SocketAddr> for Peer {
    fn eq(&self, other: &SocketAddr) -> bool {
        self.tcp() == Some(*other)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(f),
            Peer::Local(peer) => peer.fmt(f),
        }
    }
}

impl fmt::Display for LocalPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0.name, self.0.credentials) {
            (Some(Name::Path(path)), _) => write!(f, "unix:{}", path.display()),
            (Some(Name::Abstract(name)), _) => write!(f, "unix:@{}", name.escape_ascii()),
            (None, Some(who)) => write!(f, "unix:process {} of user {}", who.process, who.user),
            (None, None) => f.write_str("unix:unnamed"),
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for LocalPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
