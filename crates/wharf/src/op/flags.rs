//! How a receive takes its bytes.

use std::ops::BitOr;

/// How a receive takes its bytes: see [`Port::receive_with`](crate::raw::Port::receive_with). They are put together
/// with `|`; the default is none of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ReceiveFlags(u8);

impl ReceiveFlags {
    /// It completes when its buffers are full, not with the first bytes (`MSG_WAITALL`).
    pub const WAIT_ALL: ReceiveFlags = ReceiveFlags(1);
    /// What it brings stays in the stream (`MSG_PEEK`).
    pub const PEEK: ReceiveFlags = ReceiveFlags(2);
    /// It brings the stream's urgent byte (`MSG_OOB`).
    pub const OUT_OF_BAND: ReceiveFlags = ReceiveFlags(4);

    /// It looks at nothing, and completes with its turn.
    #[cfg_attr(windows, allow(dead_code, reason = "the kernel tells no edges"))]
    pub(crate) const EDGE: ReceiveFlags = ReceiveFlags(8);

    /// Whether all of these are set.
    #[inline]
    pub const fn contains(self, others: ReceiveFlags) -> bool {
        self.0 & others.0 == others.0
    }

    /// Whether none is set.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// They go together: to wait for all goes with none of the others.
    pub(crate) fn are_sound(self) -> bool {
        !self.contains(ReceiveFlags::WAIT_ALL) || self == ReceiveFlags::WAIT_ALL
    }
}

impl BitOr for ReceiveFlags {
    type Output = ReceiveFlags;

    fn bitor(self, other: ReceiveFlags) -> ReceiveFlags {
        ReceiveFlags(self.0 | other.0)
    }
}
