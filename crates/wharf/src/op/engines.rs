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

impl SocketEngine {
    /// What the environment asks for.
    pub(crate) fn from_environment() -> SocketEngine {
        match std::env::var(FileEngine::VARIABLE).as_deref() {
            Ok("poll") => SocketEngine::Poll,
            // Anything else is the file engine's to judge.
            _ => SocketEngine::Auto,
        }
    }
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

impl FileEngine {
    /// The variable's name.
    pub(crate) const VARIABLE: &'static str = "WHARF_ENGINE";

    /// What the environment asks for.
    pub(crate) fn from_environment() -> io::Result<FileEngine> {
        match std::env::var(Self::VARIABLE).as_deref() {
            // `poll` speaks of sockets.
            Err(std::env::VarError::NotPresent) | Ok("" | "auto" | "poll") => Ok(FileEngine::Auto),
            Ok("io_uring") => Ok(FileEngine::Ring),
            Ok("threads") => Ok(FileEngine::Threads),
            other => {
                let found = other.map_or_else(|_| "no text".to_owned(), |text| format!("{text:?}"));
                let why = format!(
                    "{} is {found}; give auto, io_uring or threads for files, poll for sockets, or unset it",
                    Self::VARIABLE
                );
                Err(io::Error::new(io::ErrorKind::InvalidInput, why))
            }
        }
    }
}
