//! What is not of the network: Unix sockets, pipes, the standard input.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::standard_input;
#[cfg(windows)]
pub(crate) use windows::standard_input;
