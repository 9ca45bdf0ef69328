//! Listening sockets that the program was started with.
//!
//! A supervisor that owns the listening socket starts its server anew without a moment in which nobody listens: the new
//! process takes connections while the old one, told to end, [drains](crate::Service::drain). The convention is
//! systemd's: the descriptors begin at 3, `LISTEN_FDS` tells how many there are, `LISTEN_PID` for which process, and
//! `LISTEN_FDNAMES`, names between colons, which is which.
//!
//! Written here, as the known crates leave the names out; it is three variables and a look at each descriptor.

use rustix::fd::{BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketType, sockopt};
use std::env;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};

/// The first descriptor that is passed on.
const FIRST: i32 = 3;
/// More are a mistake, and not looked for.
const MOST: i32 = 4096;

/// A listening socket that the program was started with: see [`inherited`].
#[derive(Debug)]
pub struct Inherited {
    /// What `LISTEN_FDNAMES` calls it; empty if it says nothing. With systemd `FileDescriptorName=`, or the unit's
    /// name.
    pub name: String,
    /// The socket.
    pub socket: InheritedSocket,
}

/// What it is.
#[derive(Debug)]
#[non_exhaustive]
pub enum InheritedSocket {
    /// For [`Service::adopt_listener`](crate::Service::adopt_listener).
    Tcp(TcpListener),
    /// For [`Service::adopt_local_listener`](crate::Service::adopt_local_listener).
    Local(UnixListener),
}

/// The listening sockets that the program was started with, by the convention of systemd's socket units (`LISTEN_FDS`,
/// `LISTEN_PID`, `LISTEN_FDNAMES`). None if it was started without; and none the second time, for they are given once.
///
/// They are not passed on to child processes. The variables stay, and mean nothing to another process: `LISTEN_PID` is
/// this one's number.
///
/// # Errors
///
/// `InvalidData`: the variables contradict themselves or the process, or a descriptor is no listening stream socket (a
/// unit with `ListenDatagram=` or `Accept=yes`, say). Those that were taken are closed.
pub fn inherited() -> io::Result<Vec<Inherited>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let Some(count) = announced(|name| env::var(name).ok(), std::process::id())? else { return Ok(Vec::new()) };
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let mut owned = Vec::new();
    for number in FIRST..FIRST + count {
        owned.push(take(number)?);
    }
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let of = |(number, socket): (i32, OwnedFd)| {
        let name = names.next().unwrap_or_default().to_owned();
        listener(number, socket).map(|socket| Inherited { name, socket })
    };
    (FIRST..).zip(owned).map(of).collect()
}

/// How many descriptors there are for this process, as the variables say.
fn announced(variable: impl Fn(&str) -> Option<String>, process: u32) -> io::Result<Option<i32>> {
    let (Some(count), Some(whose)) = (variable("LISTEN_FDS"), variable("LISTEN_PID")) else { return Ok(None) };
    let number = |name: &str, text: &str| {
        text.trim().parse::<u32>().map_err(|_| invalid(format!("{name} is {text:?} and should be a number")))
    };
    if number("LISTEN_PID", &whose)? != process {
        // The variables of an ancestor.
        return Ok(None);
    }
    match i32::try_from(number("LISTEN_FDS", &count)?) {
        Ok(0) => Ok(None),
        Ok(count) if count <= MOST => Ok(Some(count)),
        _ => Err(invalid(format!("LISTEN_FDS is {count}, which is more than the {MOST} that are believed"))),
    }
}

/// Makes a descriptor the program's own.
fn take(number: i32) -> io::Result<OwnedFd> {
    #[allow(unsafe_code)]
    // SAFETY: borrowed for one call, which fails if it is not open.
    let open = rustix::io::fcntl_setfd(unsafe { BorrowedFd::borrow_raw(number) }, FdFlags::CLOEXEC);
    open.map_err(|error| invalid(format!("LISTEN_FDS announces descriptor {number}, which is not open ({error})")))?;
    #[allow(unsafe_code)]
    // SAFETY: it is open. Whoever started the process gave it to whoever takes it by this convention, which is done
    // once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn listener(number: i32, socket: OwnedFd) -> io::Result<InheritedSocket> {
    let what = |error: io::Error| invalid(format!("descriptor {number} of LISTEN_FDS is no socket ({error})"));
    let stream = sockopt::socket_type(&socket).map_err(|error| what(error.into()))? == SocketType::STREAM;
    if !stream || !crate::sys::is_listening(&socket).map_err(what)? {
        return Err(invalid(format!(
            "descriptor {number} of LISTEN_FDS does not listen for streams; a systemd unit needs ListenStream= and Accept=no"
        )));
    }
    match rustix::net::getsockname(&socket).map_err(|error| what(error.into()))?.address_family() {
        AddressFamily::UNIX => Ok(InheritedSocket::Local(socket.into())),
        AddressFamily::INET | AddressFamily::INET6 => Ok(InheritedSocket::Tcp(socket.into())),
        other => Err(invalid(format!("descriptor {number} of LISTEN_FDS is of address family {}", other.as_raw()))),
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(variables: &[(&str, &str)]) -> Result<Option<i32>, String> {
        let look =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        announced(look, 42).map_err(|error| error.to_string())
    }

    #[test]
    fn only_what_is_meant_for_this_process_is_taken() {
        assert_eq!(told(&[]), Ok(None));
        assert_eq!(told(&[("LISTEN_FDS", "1")]), Ok(None));
        assert_eq!(told(&[("LISTEN_FDS", "1"), ("LISTEN_PID", "41")]), Ok(None));
        assert_eq!(told(&[("LISTEN_FDS", "2"), ("LISTEN_PID", "42")]), Ok(Some(2)));
        assert_eq!(told(&[("LISTEN_FDS", "0"), ("LISTEN_PID", "42")]), Ok(None));
    }

    #[test]
    fn variables_that_make_no_sense_are_an_error_that_names_them() {
        for (count, whose) in [("one", "42"), ("-1", "42"), ("1", "me"), ("5000", "42"), ("99999999999", "42")] {
            let error = told(&[("LISTEN_FDS", count), ("LISTEN_PID", whose)]).unwrap_err();
            assert!(error.contains("LISTEN_"), "{error}");
        }
    }

    #[test]
    fn what_does_not_listen_is_refused_with_the_remedy() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let error = listener(3, one.into()).unwrap_err().to_string();
        assert!(error.contains("ListenStream="), "{error}");
        let file = std::fs::File::open("/dev/null").unwrap();
        let error = listener(4, file.into()).unwrap_err().to_string();
        assert!(error.contains("no socket"), "{error}");
        let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(matches!(listener(5, listening.into()), Ok(InheritedSocket::Tcp(_))));
    }
}
