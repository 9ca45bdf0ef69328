//! What the streams of one phase of a test have in common: whether they may send, how much, and who is told when what
//! was wanted has moved. The data path touches its counters, and no lock of the test.

use crate::surroundings::port::Port;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Instant;

/// What a test hears of its streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The bytes or blocks that were wanted are there.
    Reached,
    /// No stream sends any more.
    Quiet,
}

/// The test whose streams these are.
pub(crate) trait Watcher: Send + Sync {
    /// Posts the news of that phase to the test, whose lock may be held.
    fn post(self: Arc<Self>, port: &Port, news: News, round: u32);
    /// A datagram stream has got the hello of another client; no lock is held.
    fn stray_hello(&self, from: SocketAddr);
}

/// What the streams of one phase share.
pub(crate) struct SendControl {
    open: AtomicBool,
    /// Senders that have an operation outstanding.
    active: AtomicUsize,
    /// Blocks that may still be sent.
    blocks: AtomicI64,
    limited: AtomicBool,
    sent: Moved,
    received: Moved,
    /// Bytes, or blocks, after which the client ends the test. 0: it ends otherwise.
    wanted: Moved,
    told: AtomicBool,
    watcher: Weak<dyn Watcher>,
    /// Which phase of a test of two: what an earlier phase has still to say is no news of this one.
    round: u32,
    /// The zero of the clock that stands in datagrams.
    pub(crate) origin: Instant,
    /// Datagrams of others than the streams' peers, and such as are none.
    pub(crate) foreign: AtomicU64,
}

/// What has moved in one direction.
#[derive(Default)]
struct Moved {
    bytes: AtomicU64,
    blocks: AtomicU64,
}

impl Moved {
    fn set(&self, bytes: u64, blocks: u64) {
        self.bytes.store(bytes, SeqCst);
        self.blocks.store(blocks, SeqCst);
    }
}

impl SendControl {
    pub(crate) fn new(watcher: Weak<dyn Watcher>, round: u32) -> Arc<SendControl> {
        Arc::new(SendControl {
            open: AtomicBool::new(false),
            active: AtomicUsize::new(0),
            blocks: AtomicI64::new(i64::MAX),
            limited: AtomicBool::new(false),
            sent: Moved::default(),
            received: Moved::default(),
            wanted: Moved::default(),
            told: AtomicBool::new(false),
            watcher,
            round,
            origin: Instant::now(),
            foreign: AtomicU64::new(0),
        })
    }

    // --- For the test ---

    /// From now on at most `blocks` are sent.
    pub(crate) fn limit(&self, blocks: u64) {
        self.blocks.store(i64::try_from(blocks).unwrap_or(i64::MAX), SeqCst);
        self.limited.store(true, SeqCst);
    }

    /// The test is to end when a direction has moved this amount; counts from now.
    pub(crate) fn want(&self, bytes: u64, blocks: u64) {
        self.sent.set(0, 0);
        self.received.set(0, 0);
        self.wanted.set(bytes, blocks);
        self.told.store(false, SeqCst);
    }

    /// No sender has anything outstanding.
    pub(crate) fn is_quiet(&self) -> bool {
        self.active.load(SeqCst) == 0
    }

    /// What was wanted has moved.
    pub(crate) fn is_reached(&self) -> bool {
        self.told.load(SeqCst)
    }

    pub(crate) fn open(&self) {
        self.open.store(true, SeqCst);
    }

    /// No further block is sent. True: no sender has anything outstanding either; otherwise the test hears when.
    pub(crate) fn close(&self) -> bool {
        self.open.store(false, SeqCst);
        self.is_quiet()
    }

    // --- For the streams ---

    pub(super) fn is_open(&self) -> bool {
        self.open.load(SeqCst)
    }

    /// A sender is going to have an operation outstanding.
    pub(super) fn wake(&self) {
        self.active.fetch_add(1, SeqCst);
    }

    /// A sender has nothing outstanding any more.
    pub(super) fn rest(&self, port: &Port) {
        if self.active.fetch_sub(1, SeqCst) == 1 && !self.is_open() {
            self.tell(port, News::Quiet);
        }
    }

    /// Up to `most` blocks to be sent.
    pub(super) fn take(&self, most: u64) -> u64 {
        if !self.limited.load(Relaxed) {
            return most;
        }
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let before = self.blocks.fetch_sub(most, SeqCst);
        let got = before.clamp(0, most);
        if got < most {
            self.blocks.fetch_add(most - got, SeqCst);
        }
        got as u64
    }

    /// Blocks that were taken and are not sent.
    pub(super) fn give_back(&self, blocks: u64) {
        if self.limited.load(Relaxed) {
            self.blocks.fetch_add(blocks as i64, SeqCst);
        }
    }

    pub(super) fn tell(&self, port: &Port, news: News) {
        if let Some(watcher) = self.watcher.upgrade() {
            watcher.post(port, news, self.round);
        }
    }

    pub(super) fn stray_hello(&self, from: SocketAddr) {
        if let Some(watcher) = self.watcher.upgrade() {
            watcher.stray_hello(from);
        }
    }

    pub(super) fn count_sent(&self, port: &Port, bytes: u64, blocks: u64) {
        self.count(port, &self.sent, bytes, blocks);
    }

    pub(super) fn count_received(&self, port: &Port, bytes: u64, blocks: u64) {
        self.count(port, &self.received, bytes, blocks);
    }

    fn count(&self, port: &Port, moved: &Moved, bytes: u64, blocks: u64) {
        let (wanted_bytes, wanted_blocks) = (self.wanted.bytes.load(Relaxed), self.wanted.blocks.load(Relaxed));
        if wanted_bytes == 0 && wanted_blocks == 0 {
            return;
        }
        let bytes = moved.bytes.fetch_add(bytes, SeqCst) + bytes;
        let blocks = moved.blocks.fetch_add(blocks, SeqCst) + blocks;
        let reached = wanted_bytes > 0 && bytes >= wanted_bytes || wanted_blocks > 0 && blocks >= wanted_blocks;
        if reached && !self.told.swap(true, SeqCst) {
            self.tell(port, News::Reached);
        }
    }
}
