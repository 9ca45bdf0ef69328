//! Sessions on Unix sockets.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::SocketFile;
#[cfg(windows)]
pub(crate) use windows::SocketFile;
