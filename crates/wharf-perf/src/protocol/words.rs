//! The words of the control connection that are single numbers, and the numbers on which both ends agree beforehand.

/// What the peer is told.
pub const VERSION: &str = concat!("wharf ", env!("CARGO_PKG_VERSION"));
/// Where servers listen, unless told otherwise.
pub const DEFAULT_PORT: u16 = 5201;

/// The states that travel over the control connection, one signed byte each.
#[allow(missing_docs)]
pub mod state {
    pub const TEST_START: i8 = 1;
    pub const TEST_RUNNING: i8 = 2;
    pub const TEST_END: i8 = 4;
    pub const PARAM_EXCHANGE: i8 = 9;
    pub const CREATE_STREAMS: i8 = 10;
    pub const SERVER_TERMINATE: i8 = 11;
    pub const CLIENT_TERMINATE: i8 = 12;
    pub const EXCHANGE_RESULTS: i8 = 13;
    pub const DISPLAY_RESULTS: i8 = 14;
    pub const DONE: i8 = 16;
    /// Ours, from a client to a server that said `wharf_two_phase`, in place of `DONE`: the other direction is next.
    pub const SECOND_PHASE: i8 = 100;
    pub const ACCESS_DENIED: i8 = -1;
    pub const SERVER_ERROR: i8 = -2;
}
