//! What is sent: the bytes of a block, and how many blocks go in one call.

use crate::measure::verify;
use crate::protocol::Cookie;
use crate::protocol::parameters::{Parameters, Protocol};
use std::sync::Arc;

/// Bytes of one send of TCP: blocks are joined up to this. Measured: sends of 256 KiB and of 1 MiB were slower and cost
/// more.
const SEND_BYTES: usize = 512 * 1024;
/// Blocks smaller than this are sent one a call: who asks for small ones wants to know what they cost.
const JOINED_BYTES_MIN: usize = 64 * 1024;
/// The system's limit of datagrams in one segmented send.
const SEGMENTS_MAX: usize = 64;
/// A segmented send's bytes: what one datagram may have.
const SEGMENTED_BYTES_MAX: usize = 65507;

/// The bytes of a test's blocks.
#[derive(Clone)]
pub(crate) struct Payload {
    /// The same bytes for all streams, 1, 2, 4 … blocks of them.
    shared: Arc<Vec<Arc<[u8]>>>,
}

impl Payload {
    pub(crate) fn new(parameters: &Parameters, cookie: &Cookie) -> Payload {
        let most = joined_blocks(parameters);
        let mut block = match (parameters.verify, parameters.repeating_payload) {
            (true, _) => verify::pattern(cookie, parameters.len),
            (_, true) => b"0123456789".iter().copied().cycle().take(parameters.len).collect(),
            _ => {
                let mut bytes = vec![0; parameters.len];
                fastrand::Rng::new().fill(&mut bytes);
                bytes
            }
        };
        let mut shared = Vec::new();
        let mut blocks = 1;
        loop {
            shared.push(Arc::from(&block[..]));
            blocks *= 2;
            if blocks > most || parameters.verify || parameters.protocol == Protocol::Udp {
                break;
            }
            block.extend_from_within(..);
        }
        Payload { shared: Arc::new(shared) }
    }

    pub(super) fn block(&self) -> &Arc<[u8]> {
        &self.shared[0]
    }

    /// Blocks of TCP that are all alike: a power of two of them.
    pub(super) fn blocks(&self, power_of_two: u64) -> Arc<[u8]> {
        self.shared[power_of_two.ilog2() as usize].clone()
    }
}

/// Most blocks of one send.
pub(super) fn joined_blocks(parameters: &Parameters) -> u64 {
    let len = parameters.len.max(1);
    let blocks = match parameters.protocol {
        Protocol::Udp => (SEGMENTED_BYTES_MAX / len).clamp(1, SEGMENTS_MAX),
        Protocol::Tcp if len < JOINED_BYTES_MIN => 1,
        Protocol::Tcp => (SEND_BYTES / len).max(1),
    };
    blocks as u64
}
