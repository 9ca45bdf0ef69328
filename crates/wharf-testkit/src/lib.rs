//! What the tests of several packages here share. It knows nothing of wharf itself, so that wharf's own tests can use
//! it.

pub mod blind;
#[cfg(unix)]
pub mod example;
#[cfg(unix)]
pub mod fork;
pub mod heap;
#[cfg(unix)]
pub mod limits;
pub mod numbers;
pub mod plain;
pub mod process;
pub mod seeds;
pub mod sockets;
