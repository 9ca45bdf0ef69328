//! Which engines a program, or who starts it, asks for. On Windows there is one, and nothing to choose.

use std::io;

/// What tells a port which of its sockets and pipes are ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SocketEngine {
    /// The best that the system has: epoll on Linux, else `poll(2)`.
    #[default]
    Auto,
    /// `poll(2)`, which every Unix has. Its cost grows with the number of sockets, and where
    /// the system is not Linux a [`notifier`](crate::CompletionPort::notifier) hears of posts only.
    Poll,
}

/// Which way files go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileEngine {
    /// io_uring where the kernel gives one, else threads.
    #[default]
    Auto,
    /// io_uring; where the kernel gives none, file operations that cannot be done at once fail.
    Ring,
    /// A bounded pool of threads.
    Threads,
}

/// The environment variable that chooses engines where a program does not.
const VARIABLE: &str = "WHARF_ENGINE";

/// What the environment asks for: the value names one engine, and the other kind is left to the system.
pub(crate) fn engines_from_environment() -> io::Result<(SocketEngine, FileEngine)> {
    match std::env::var(VARIABLE).as_deref() {
        Err(std::env::VarError::NotPresent) | Ok("" | "auto") => Ok((SocketEngine::Auto, FileEngine::Auto)),
        Ok("poll") => Ok((SocketEngine::Poll, FileEngine::Auto)),
        Ok("io_uring") => Ok((SocketEngine::Auto, FileEngine::Ring)),
        Ok("threads") => Ok((SocketEngine::Auto, FileEngine::Threads)),
        other => {
            let found = other.map_or_else(|_| "no text".to_owned(), |text| format!("{text:?}"));
            let why = format!(
                "{VARIABLE} is {found}; give auto, io_uring or threads for files, poll for sockets, or unset it"
            );
            Err(io::Error::new(io::ErrorKind::InvalidInput, why))
        }
    }
}
