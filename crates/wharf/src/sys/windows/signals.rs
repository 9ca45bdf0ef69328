//! The signals that Windows tells a program of, or that end a child, under the numbers that C gives them there.

/// Ctrl+C.
pub const SIGINT: i32 = 2;
/// The end of a process. It cannot be caught, only sent.
pub const SIGKILL: i32 = 9;
/// The end of the console, the session or the system.
pub const SIGTERM: i32 = 15;
/// Ctrl+Break.
pub const SIGBREAK: i32 = 21;
