//! What both ends of a stream have: what carries it, its counter, and whether it has ended.

use super::send_control::SendControl;
use crate::measure::figures::StreamInfo;
use crate::protocol::parameters::Parameters;
use crate::surroundings::port::{Datagrams, File, Stream};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

/// What carries a stream.
pub(crate) enum Carrier {
    Tcp(Stream),
    Udp(Datagrams, SocketAddr),
}

/// What both ends of a stream are built on.
pub(crate) struct StreamBase {
    pub(super) info: StreamInfo,
    pub(super) carrier: Carrier,
    pub(super) control: Arc<SendControl>,
    /// What a sender sends, or where a receiver puts it.
    pub(super) file: Option<File>,
    /// Bytes of a block.
    pub(super) len: usize,
    pub(super) verify: bool,
    /// Datagrams have counters of 64 bits.
    pub(super) wide: bool,
    bytes: AtomicU64,
    ended: AtomicBool,
    broke: Mutex<Option<String>>,
}

impl StreamBase {
    pub(super) fn new(
        info: StreamInfo,
        carrier: Carrier,
        control: &Arc<SendControl>,
        parameters: &Parameters,
        file: Option<File>,
    ) -> StreamBase {
        StreamBase {
            info,
            carrier,
            control: control.clone(),
            file,
            len: parameters.len,
            verify: parameters.verify,
            wide: parameters.counters_64bit,
            bytes: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            broke: Mutex::default(),
        }
    }

    pub(super) fn tcp(&self) -> Option<&Stream> {
        match &self.carrier {
            Carrier::Tcp(stream) => Some(stream),
            Carrier::Udp(..) => None,
        }
    }

    pub(super) fn is_udp(&self) -> bool {
        self.tcp().is_none()
    }

    /// Payload bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(SeqCst)
    }

    /// Counts payload bytes; how many there were before.
    pub(super) fn add_bytes(&self, bytes: u64) -> u64 {
        self.bytes.fetch_add(bytes, SeqCst)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(SeqCst)
    }

    /// Why it ended before the test, if it did.
    pub(super) fn broke(&self) -> Option<String> {
        self.broke.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The stream is of no use any more; the test goes on, and its report says why.
    pub(super) fn broken(&self, why: &io::Error) {
        if !self.ended.swap(true, SeqCst) && self.control.is_open() {
            let mut broke = self.broke.lock().unwrap_or_else(PoisonError::into_inner);
            broke.get_or_insert_with(|| why.to_string());
        }
    }

    pub(super) fn close(&self) {
        self.ended.store(true, SeqCst);
        match &self.carrier {
            Carrier::Tcp(stream) => stream.close(),
            Carrier::Udp(socket, _) => socket.close(),
        }
    }
}
