//! The numbers of the signals that programs catch, or send to a child. The system has more, and a port takes any
//! number.

/// The terminal is gone; to many servers: read the configuration anew.
pub const SIGHUP: i32 = libc::SIGHUP;
/// Ctrl+C.
pub const SIGINT: i32 = libc::SIGINT;
/// Ctrl+\.
pub const SIGQUIT: i32 = libc::SIGQUIT;
/// The end of a process at once. It cannot be caught, only sent.
pub const SIGKILL: i32 = libc::SIGKILL;
/// For the program's own use.
pub const SIGUSR1: i32 = libc::SIGUSR1;
/// For the program's own use.
pub const SIGUSR2: i32 = libc::SIGUSR2;
/// The request to end, as `kill` and service managers send it.
pub const SIGTERM: i32 = libc::SIGTERM;
