//! Sessions on Unix sockets: the same sessions, for peers on this machine.
//!
//! A name is a path, or, beginning with `@`, an *abstract* name, which lies in no directory and is gone when its
//! last socket is closed. (A file whose name begins with `@` is `./@…`.)
//!
//! A path stays behind when its server is killed, and then nobody can listen there. So a path that is taken is tried:
//! if a connection to it is refused, nobody listens, and the socket file is *stale* and replaced. Anything else, a file
//! that is no socket included, is left alone. Two servers that replace the same stale file in the same instant may both
//! succeed, and the second has the path; who starts servers in parallel gives them names of their own.

use crate::Session;
use crate::conn::Conn;
use crate::dispatch::{Node, Op};
use crate::link::Link;
use crate::peer::{LocalPeer, Peer};
use crate::service::{Inner, Listening, Make, Service, Stream, full};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Connections that may wait to be accepted; the system has a limit of its own (`net.core.somaxconn`, 4096).
const BACKLOG: i32 = 4096;

impl Service {
    /// Listens on a Unix socket, and makes a session of each connection. May be called for several.
    ///
    /// A name that begins with `@` is abstract. A path gets the permissions that the process's umask leaves; whoever
    /// may write to it may connect. A stale socket file is replaced. When the service stops listening it removes the
    /// file, if it is still its own.
    ///
    /// # Errors
    ///
    /// `AddrInUse`: somebody listens there. `AlreadyExists`: there is something that is no socket. `InvalidInput`: the
    /// name is empty, or longer than 107 bytes. And the system's: no such directory, no permission.
    pub fn listen_local<S: Session>(
        &self,
        name: impl AsRef<Path>,
        make: impl Fn(&LocalPeer) -> S + Send + Sync + 'static,
    ) -> io::Result<()> {
        // Before a socket file is made, which nobody would remove.
        self.inner.at_home()?;
        let name = name.as_ref();
        let listener = listen(name)?;
        let file = if is_abstract(name) { None } else { SocketFile::of(name) };
        self.listen_on(listener, file, make)
    }

    /// Like [`listen_local`](Service::listen_local), on a socket that listens already. Its file, if it has one, is not
    /// removed.
    pub fn adopt_local_listener<S: Session>(
        &self,
        listener: UnixListener,
        make: impl Fn(&LocalPeer) -> S + Send + Sync + 'static,
    ) -> io::Result<()> {
        self.listen_on(listener, None, make)
    }

    fn listen_on<S: Session>(
        &self,
        listener: UnixListener,
        file: Option<SocketFile>,
        make: impl Fn(&LocalPeer) -> S + Send + Sync + 'static,
    ) -> io::Result<()> {
        let make = Make::Local(Box::new(move |peer| Box::new(make(peer))));
        let listener = self.inner.port.associate(listener, Node::Listener(Arc::new(Listening::new(make, None))))?;
        self.inner.begin_accepting(listener, file)
    }

    /// Connects to a Unix socket; a name that begins with `@` is abstract. A worker calls the session's `opened`.
    ///
    /// Does not block: a Unix socket is connected at once or not at all.
    ///
    /// # Errors
    ///
    /// `NotFound`: there is no such socket. `ConnectionRefused`: nobody listens on it. `WouldBlock`: more connections
    /// wait to be accepted than may; try again later, as [`reconnect_local`](Service::reconnect_local) does.
    /// `QuotaExceeded`: the service has as many sessions as it may have.
    pub fn connect_local(&self, name: impl AsRef<Path>, session: impl Session) -> io::Result<Link> {
        self.inner.connect_local(name.as_ref(), Box::new(session))
    }

    /// Hands the service a Unix connection that was made elsewhere. A worker calls the session's `opened`.
    pub fn adopt_local(&self, socket: UnixStream, session: impl Session) -> io::Result<Link> {
        self.inner.adopt_local(socket, Box::new(session))
    }
}

impl Inner {
    pub(crate) fn connect_local(self: &Arc<Self>, name: &Path, session: Box<dyn Session>) -> io::Result<Link> {
        self.at_home()?;
        self.adopt_local(connect(name)?, session)
    }

    fn adopt_local(self: &Arc<Self>, socket: UnixStream, session: Box<dyn Session>) -> io::Result<Link> {
        self.at_home()?;
        let conn = self.admit(Peer::Local(LocalPeer::of(&socket)), None, session).ok_or_else(full)?;
        self.associate_local(socket, &conn)?;
        // The port is open as long as the service is.
        let _ = self.port.post(0, Node::Session(conn.clone()), Op::Start);
        Ok(Link(conn))
    }

    pub(crate) fn accepted_local(self: &Arc<Self>, listening: &Listening, socket: UnixStream) {
        let Make::Local(make) = &listening.make else { unreachable!("a listener takes one kind of connections") };
        let peer = LocalPeer::of(&socket);
        if let Some(conn) = self.welcome(Peer::Local(peer.clone()), None, || make(&peer)) {
            let associated = self.port.associate_accepted(socket, Node::Session(conn.clone()));
            self.served(&conn, self.associated(&conn, associated));
        }
    }

    fn associate_local(self: &Arc<Self>, socket: UnixStream, conn: &Arc<Conn>) -> io::Result<Stream> {
        self.associated(conn, self.port.associate(socket, Node::Session(conn.clone())))
    }

    /// A listener of the service is gone: its file too.
    pub(crate) fn remove_socket_files(&self) {
        let files = std::mem::take(&mut *self.socket_files.lock());
        for file in files {
            file.remove();
        }
    }
}

/// A socket file that the service has made.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode: another server may have the path by now.
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> Option<SocketFile> {
        // The program's working directory may change.
        let path = std::path::absolute(path).ok()?;
        Some(SocketFile { identity: identity(&path)?, path })
    }

    fn remove(&self) {
        if identity(&self.path) == Some(self.identity) {
            if let Err(error) = std::fs::remove_file(&self.path) {
                log::warn!("the socket {} cannot be removed: {error}", self.path.display());
            }
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = std::fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

fn is_abstract(name: &Path) -> bool {
    name.as_os_str().as_bytes().starts_with(b"@")
}

fn address(name: &Path) -> io::Result<SocketAddrUnix> {
    let bytes = name.as_os_str().as_bytes();
    if bytes.is_empty() || bytes == b"@" {
        let what = "the name of a Unix socket is empty; give a path, or `@` and an abstract name";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => crate::sys::abstract_name(name),
        None => SocketAddrUnix::new(name),
    };
    address.map_err(|error| match error {
        Errno::NAMETOOLONG => io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("the name of a Unix socket has at most 107 bytes, and {} has {}", name.display(), bytes.len()),
        ),
        other => other.into(),
    })
}

fn connect(name: &Path) -> io::Result<UnixStream> {
    let address = address(name)?;
    let socket = crate::sys::local_socket()?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket.into())
}

fn listen(name: &Path) -> io::Result<UnixListener> {
    let address = address(name)?;
    let socket = crate::sys::local_socket()?;
    match rustix::net::bind(&socket, &address) {
        Err(Errno::ADDRINUSE) if !is_abstract(name) => {
            remove_stale(name)?;
            rustix::net::bind(&socket, &address)?;
        }
        other => other?,
    }
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Removes a socket file on which nobody listens.
fn remove_stale(path: &Path) -> io::Result<()> {
    let found = std::fs::symlink_metadata(path)?;
    if !found.file_type().is_socket() {
        let what = format!("{} exists and is no socket; remove it, or choose another path", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
    }
    match connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        // Somebody listens, or it cannot be told.
        _ => return Err(Errno::ADDRINUSE.into()),
    }
    if identity(path) == Some((found.dev(), found.ino())) {
        log::info!("the socket {} is stale, nobody listens on it: it is replaced", path.display());
        std::fs::remove_file(path)?;
    }
    Ok(())
}
