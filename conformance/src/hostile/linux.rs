//! Surroundings in which a system may put a program, for the whole process: io_uring refused by a system-call filter,
//! as containers do it; few descriptors; no memory that may be locked. The suite has to pass in each of them.

use crate::system::{self, Call};
use std::io;
use std::str::FromStr;
use std::sync::OnceLock;

/// How this process is treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Surroundings {
    /// A system call of io_uring fails with a number.
    Refused { call: Call, error: i32 },
    /// So many descriptors may be open.
    Descriptors(u64),
    /// No memory may be locked, and the privilege to do so nevertheless is gone.
    NoLockedMemory,
}

/// The names of the numbers that a filter or the kernel gives (io_uring_setup(2)).
const ERRORS: [(&str, i32); 10] = [
    ("ENOSYS", libc::ENOSYS),
    ("EPERM", libc::EPERM),
    ("EACCES", libc::EACCES),
    ("EINVAL", libc::EINVAL),
    ("ENOMEM", libc::ENOMEM),
    ("EMFILE", libc::EMFILE),
    ("ENFILE", libc::ENFILE),
    ("EFAULT", libc::EFAULT),
    ("EOPNOTSUPP", libc::EOPNOTSUPP),
    ("EBUSY", libc::EBUSY),
];

const CALLS: [(&str, Call); 3] =
    [("io_uring_setup", Call::Setup), ("io_uring_enter", Call::Enter), ("io_uring_register", Call::Register)];

impl FromStr for Surroundings {
    type Err = String;

    fn from_str(text: &str) -> Result<Surroundings, String> {
        const HELP: &str = "give descriptors=64, memlock=0, or a call and its error: io_uring_setup=EPERM";
        let (name, value) = text.split_once('=').ok_or(HELP)?;
        if let Some((_, call)) = CALLS.into_iter().find(|(known, _)| *known == name) {
            let known = ERRORS.into_iter().find(|(known, _)| *known == value);
            let (_, error) =
                known.ok_or_else(|| format!("{value} is none of {}", ERRORS.map(|(name, _)| name).join(", ")))?;
            return Ok(Surroundings::Refused { call, error });
        }
        match (name, value.parse()) {
            ("descriptors", Ok(count)) => Ok(Surroundings::Descriptors(count)),
            ("memlock", Ok(0)) => Ok(Surroundings::NoLockedMemory),
            _ => Err(HELP.into()),
        }
    }
}

static CURRENT: OnceLock<Surroundings> = OnceLock::new();

/// What this process has been put into.
pub fn current() -> Option<&'static Surroundings> {
    CURRENT.get()
}

/// What has to run files where the program leaves it to the library; `None` where both will do.
pub fn files() -> Option<&'static str> {
    match current()? {
        Surroundings::Refused { call: Call::Setup | Call::Register, .. } => Some("threads"),
        // A ring that was given and then takes nothing is given up when the first operations have come.
        Surroundings::Refused { call: Call::Enter, .. } | Surroundings::NoLockedMemory => None,
        Surroundings::Descriptors(_) => None,
    }
}

/// How many rows may run at a time there.
pub fn rows_at_a_time() -> Option<usize> {
    matches!(current(), Some(Surroundings::Descriptors(_))).then_some(1)
}

/// How many of `usual` connections at once there are descriptors for.
pub fn at_once(usual: u64) -> u64 {
    match current() {
        Some(Surroundings::Descriptors(count)) => usual.min(count / 16 * 4).max(4),
        _ => usual,
    }
}

/// Puts the process, which has one thread yet, and its children into such surroundings, for good.
pub fn enter(surroundings: &Surroundings) -> io::Result<()> {
    match *surroundings {
        Surroundings::Refused { call, error } => system::refuse(call, error)?,
        Surroundings::Descriptors(count) => limit(rustix::process::Resource::Nofile, count)?,
        Surroundings::NoLockedMemory => {
            limit(rustix::process::Resource::Memlock, 0)?;
            system::lose_privilege()?;
        }
    }
    let _ = CURRENT.set(surroundings.clone());
    Ok(())
}

fn limit(resource: rustix::process::Resource, count: u64) -> io::Result<()> {
    let limit = rustix::process::Rlimit { current: Some(count), maximum: Some(count) };
    Ok(rustix::process::setrlimit(resource, limit)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surroundings_are_named_by_what_they_take_away() {
        let refused = Surroundings::Refused { call: Call::Enter, error: libc::ENOMEM };
        assert_eq!("io_uring_enter=ENOMEM".parse(), Ok(refused));
        assert_eq!("descriptors=64".parse(), Ok(Surroundings::Descriptors(64)));
        assert_eq!("memlock=0".parse(), Ok(Surroundings::NoLockedMemory));
        for wrong in ["", "memlock=1", "io_uring_setup", "io_uring_setup=EWHAT", "descriptors=few"] {
            assert!(wrong.parse::<Surroundings>().is_err(), "{wrong}");
        }
    }
}
