//! What the system has too little of.

/// What has run out when nothing more can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scarce {
    /// What this process may have.
    Here,
    /// What the whole system has.
    Everywhere,
}
