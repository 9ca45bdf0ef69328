//! Listening sockets that the program was started with.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub use unix::{Inherited, InheritedSocket, inherited};
#[cfg(windows)]
pub use windows::{Inherited, InheritedSocket, inherited};
