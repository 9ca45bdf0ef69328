//! What a test stands on: the port and its packets, sockets, files, what only the system can say, and the time of its
//! processors. Nothing here knows what a test is.

pub(crate) mod file;
pub(crate) mod machinery;
pub(crate) mod port;
pub(crate) mod processor;
pub(crate) mod socket;
pub(crate) mod system;
