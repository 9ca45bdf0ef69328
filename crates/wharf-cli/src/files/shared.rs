//! What all connections share.

use super::access_log::AccessLog;
use super::answer::Site;
use super::deadlines::Deadlines;
use std::sync::atomic::{AtomicBool, AtomicU64};

#[derive(Debug)]
pub struct Shared {
    pub site: Site,
    pub deadlines: Deadlines,
    pub totals: Totals,
    pub access_log: Option<AccessLog>,
    /// No request is waited for any more.
    pub stopping: AtomicBool,
    pub header_timeout_ms: u64,
    pub idle_timeout_ms: u64,
    pub send_timeout_ms: u64,
}

#[derive(Debug, Default)]
pub struct Totals {
    pub accepted: AtomicU64,
    /// Connections too many.
    pub refused: AtomicU64,
    /// Requests that were answered, in whatever way.
    pub requests: AtomicU64,
    /// Of these: took too long to arrive.
    pub late: AtomicU64,
    /// Sent, heads included.
    pub bytes: AtomicU64,
}

impl Shared {
    pub fn log(&self, line: Vec<u8>) {
        if let Some(log) = &self.access_log {
            log.add(line);
        }
    }
}
