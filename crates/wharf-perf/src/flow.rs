//! The data path of one stream: one operation outstanding at a time, and when it completes the next one. It touches its own
//! counters and the test's [`Gate`], no lock of the test.

use crate::datagram::{self, Account, Header};
use crate::op::{File, Op, Port, Stream, UdpSocket};
use crate::pace::Pacer;
use crate::parameters::{Parameters, Protocol};
use crate::protocol::Cookie;
use crate::report::{Snapshot, StreamInfo};
use crate::results::Verification;
use crate::session::Session;
use crate::socket;
use crate::verify::{self, Checker};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use wharf::{Buffer, Event};

/// Bytes of one send of TCP: blocks are joined up to this. Measured: sends of 256 KiB and of 1 MiB were slower and cost more.
const SEND_BYTES: usize = 512 * 1024;
/// Blocks smaller than this are sent one a call: who asks for small ones wants to know what they cost.
const JOINED_BYTES_MIN: usize = 64 * 1024;
/// Bytes of one receive of TCP; from nine streams on fewer, so that their buffers together stay in the cache.
const RECEIVE_BYTES: usize = 512 * 1024;
const RECEIVE_BYTES_MIN: usize = 128 * 1024;
const RECEIVE_BYTES_TOGETHER: usize = 4 << 20;
/// The system's limit of datagrams in one segmented send.
const SEGMENTS_MAX: usize = 64;
/// A segmented send's bytes: what one datagram may have.
const SEGMENTED_BYTES_MAX: usize = 65507;
/// The shortest sleep of a sender that keeps a rate. What is due then goes in one call.
const NAP: Duration = Duration::from_micros(200);

/// What the streams of a test have in common: whether they may send, and how much.
pub(crate) struct Gate {
    open: AtomicBool,
    /// Senders that have an operation outstanding.
    active: AtomicUsize,
    /// Blocks that may still be sent.
    blocks: AtomicI64,
    limited: AtomicBool,
    sent: [AtomicU64; 2],
    received: [AtomicU64; 2],
    /// Bytes, or blocks, after which the client ends the test. 0: not that way.
    wanted: [AtomicU64; 2],
    told: AtomicBool,
    session: std::sync::Weak<Session>,
    /// Of a test in two phases, which: what an earlier one has still to say is no news of this one.
    phase: u32,
    pub(crate) origin: Instant,
    /// Datagrams of others than the streams' peers, and such as are none.
    pub(crate) foreign: AtomicU64,
}

impl Gate {
    pub(crate) fn new(session: std::sync::Weak<Session>, phase: u32) -> Arc<Gate> {
        Arc::new(Gate {
            open: AtomicBool::new(false),
            active: AtomicUsize::new(0),
            blocks: AtomicI64::new(i64::MAX),
            limited: AtomicBool::new(false),
            sent: Default::default(),
            received: Default::default(),
            wanted: Default::default(),
            told: AtomicBool::new(false),
            session,
            phase,
            origin: Instant::now(),
            foreign: AtomicU64::new(0),
        })
    }

    /// From now on at most so many blocks are sent.
    pub(crate) fn limit(&self, blocks: u64) {
        self.blocks.store(i64::try_from(blocks).unwrap_or(i64::MAX), SeqCst);
        self.limited.store(true, SeqCst);
    }

    /// The test is to end when a direction has moved so much; counts from now.
    pub(crate) fn want(&self, bytes: u64, blocks: u64) {
        for count in self.sent.iter().chain(&self.received) {
            count.store(0, SeqCst);
        }
        self.wanted[0].store(bytes, SeqCst);
        self.wanted[1].store(blocks, SeqCst);
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

    /// No further block is sent. True: no sender has anything outstanding either; otherwise the session hears when.
    pub(crate) fn close(&self) -> bool {
        self.open.store(false, SeqCst);
        self.active.load(SeqCst) == 0
    }

    fn take(&self, most: u64) -> u64 {
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

    fn tell(&self, port: &Port, what: fn(Arc<Session>, u32) -> Op) {
        if let Some(session) = self.session.upgrade() {
            let _ = port.post(0, (), what(session, self.phase));
        }
    }

    fn count(&self, port: &Port, counters: &[AtomicU64; 2], bytes: u64, blocks: u64) {
        let (wanted_bytes, wanted_blocks) = (self.wanted[0].load(Relaxed), self.wanted[1].load(Relaxed));
        if wanted_bytes == 0 && wanted_blocks == 0 {
            return;
        }
        let bytes = counters[0].fetch_add(bytes, SeqCst) + bytes;
        let blocks = counters[1].fetch_add(blocks, SeqCst) + blocks;
        let reached = wanted_bytes > 0 && bytes >= wanted_bytes || wanted_blocks > 0 && blocks >= wanted_blocks;
        if reached && !self.told.swap(true, SeqCst) {
            self.tell(port, Op::Reached);
        }
    }
}

/// What carries a stream.
pub(crate) enum Link {
    Tcp(Stream),
    Udp(UdpSocket, SocketAddr),
}

/// One stream.
pub(crate) struct Flow {
    pub(crate) info: StreamInfo,
    link: Link,
    gate: Arc<Gate>,
    /// What a sender sends, or where a receiver puts it.
    file: Option<File>,
    /// A write to the file is outstanding.
    writing: AtomicBool,
    /// The file was sent to its end.
    exhausted: AtomicBool,
    len: usize,
    /// Of the whole test.
    streams: usize,
    /// Most blocks of one send.
    join: AtomicU64,
    verify: bool,
    wide: bool,
    header: usize,
    bytes: AtomicU64,
    /// Datagrams or blocks sent.
    packets: AtomicU64,
    in_flight: AtomicU64,
    ended: AtomicBool,
    work: Mutex<Work>,
}

struct Work {
    pacer: Pacer,
    account: Account,
    checker: Option<Checker>,
    payload: Payload,
    number: u64,
    segmented: bool,
    /// Bytes of the file that were read or written.
    offset: u64,
    /// For the next read of the file.
    spare: Option<Buffer>,
    broke: Option<String>,
}

/// What is sent.
#[derive(Clone)]
pub(crate) struct Payload {
    /// The same bytes for all streams, 1, 2, 4 … blocks of them.
    shared: Arc<Vec<Arc<[u8]>>>,
    /// A stream's own memory, where blocks differ.
    own: Option<Vec<u8>>,
}

impl Payload {
    pub(crate) fn new(parameters: &Parameters, cookie: &Cookie) -> Payload {
        let most = joined(parameters);
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
        Payload { shared: Arc::new(shared), own: None }
    }

    fn block(&self) -> &Arc<[u8]> {
        &self.shared[0]
    }
}

fn joined(parameters: &Parameters) -> u64 {
    let len = parameters.len.max(1);
    let blocks = match parameters.protocol {
        Protocol::Udp => (SEGMENTED_BYTES_MAX / len).clamp(1, SEGMENTS_MAX),
        Protocol::Tcp if len < JOINED_BYTES_MIN => 1,
        Protocol::Tcp => (SEND_BYTES / len).max(1),
    };
    blocks as u64
}

impl Flow {
    pub(crate) fn new(
        info: StreamInfo,
        link: Link,
        gate: &Arc<Gate>,
        parameters: &Parameters,
        payload: &Payload,
        file: Option<File>,
    ) -> Arc<Flow> {
        let mut segmented = false;
        if let Link::Udp(socket, _) = &link {
            let len = u16::try_from(parameters.len).unwrap_or(u16::MAX);
            segmented = info.sends && joined(parameters) > 1 && socket.set_segment_bytes(Some(len)).is_ok();
            if !info.sends {
                let _ = socket.set_receive_offload(true);
            }
        }
        let udp = parameters.protocol == Protocol::Udp;
        let checker =
            (parameters.verify && !info.sends).then(|| Checker::new(payload.block().clone(), info.id, parameters.len));
        let gap = Duration::from_micros(parameters.send_interval_us);
        let work = Work {
            pacer: Pacer::new(parameters.bandwidth, parameters.burst, gap),
            account: Account::default(),
            checker,
            payload: payload.clone(),
            number: 0,
            segmented,
            offset: 0,
            spare: None,
            broke: None,
        };
        Arc::new(Flow {
            info,
            link,
            gate: gate.clone(),
            file,
            writing: AtomicBool::new(false),
            exhausted: AtomicBool::new(false),
            len: parameters.len,
            streams: parameters.streams().max(1),
            join: AtomicU64::new(if udp && !segmented { 1 } else { joined(parameters) }),
            verify: parameters.verify,
            wide: parameters.counters_64bit,
            header: parameters.header_bytes(),
            bytes: AtomicU64::new(0),
            packets: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            work: Mutex::new(work),
        })
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream's counters. `tcp`: with what the kernel says; under the test's lock.
    pub(crate) fn snapshot(&self, tcp: bool) -> Snapshot {
        let bytes = self.bytes.load(SeqCst);
        match &self.link {
            Link::Tcp(stream) => {
                let tcp = (tcp && self.info.sends).then(|| socket::tcp_sample(stream)).flatten();
                Snapshot { bytes, tcp, ..Snapshot::default() }
            }
            Link::Udp(..) if self.info.sends => {
                Snapshot { bytes, packets: self.packets.load(SeqCst), ..Snapshot::default() }
            }
            Link::Udp(..) => {
                let account = self.work().account;
                Snapshot {
                    bytes,
                    packets: account.highest,
                    lost: account.lost,
                    out_of_order: account.out_of_order,
                    jitter: account.jitter,
                    tcp: None,
                }
            }
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(SeqCst)
    }

    pub(crate) fn tcp(&self) -> Option<&Stream> {
        match &self.link {
            Link::Tcp(stream) => Some(stream),
            Link::Udp(..) => None,
        }
    }

    /// What the receiver's look at each block has brought.
    pub(crate) fn verification(&self) -> Option<Verification> {
        self.work().checker.as_ref().map(|checker| checker.found)
    }

    /// Why it ended before the test, if it did.
    pub(crate) fn broke(&self) -> Option<String> {
        self.work().broke.clone()
    }

    /// Nothing moves on it any more: it broke, or its file is at the end.
    pub(crate) fn is_over(&self) -> bool {
        self.ended.load(SeqCst) || self.exhausted.load(SeqCst)
    }

    /// The longest time between two sends, if nothing holds them up.
    pub(crate) fn pause(&self) -> Duration {
        self.work().pacer.pause(self.len)
    }

    /// It writes what arrives to a file, and has not written all of it yet.
    pub(crate) fn is_storing(&self) -> bool {
        let Some(stream) = self.tcp().filter(|_| self.file.is_some() && !self.info.sends) else { return false };
        self.writing.load(SeqCst) || !self.ended.load(SeqCst) && socket::unread_bytes(stream) > 0
    }

    pub(crate) fn close(&self) {
        self.ended.store(true, SeqCst);
        match &self.link {
            Link::Tcp(stream) => stream.close(),
            Link::Udp(socket, _) => socket.close(),
        }
    }

    // --- Sending ---

    pub(crate) fn begin_sending(self: &Arc<Self>, port: &Port) {
        self.gate.active.fetch_add(1, SeqCst);
        self.clone().send(port);
    }

    /// A paced sender wakes.
    pub(crate) fn resume(self: Arc<Self>, port: &Port) {
        self.gate.active.fetch_add(1, SeqCst);
        self.send(port);
    }

    /// Nothing is outstanding from here on.
    fn rest(self: Arc<Self>, port: &Port) {
        if self.gate.active.fetch_sub(1, SeqCst) == 1 && !self.gate.open.load(SeqCst) {
            self.gate.tell(port, Op::Quiet);
        }
    }

    fn send(self: Arc<Self>, port: &Port) {
        if !self.gate.open.load(SeqCst) || self.ended.load(SeqCst) {
            return self.rest(port);
        }
        let mut work = self.work();
        let mut most = self.join.load(Relaxed);
        if !work.pacer.is_unlimited() {
            let now = Instant::now();
            if let Some(wait) = work.pacer.wait(now) {
                let nap = if work.pacer.keeps_a_gap() { Duration::ZERO } else { NAP };
                drop(work);
                // Not counted as outstanding while it sleeps: a test must not wait for it at its end.
                self.clone().rest(port);
                let _ = port.timer(wait.max(nap), (), Op::Pace(self));
                return;
            }
            most = work.pacer.allowance(now, self.len, most);
        }
        let blocks = self.gate.take(most);
        if blocks == 0 {
            drop(work);
            return self.rest(port);
        }
        let blocks = match &self.link {
            // Of shared bytes there are 1, 2, 4 … blocks.
            Link::Tcp(_) if !self.verify => {
                let power = 1 << blocks.ilog2();
                self.give_back(blocks - power);
                power
            }
            _ => blocks,
        };
        work.pacer.sent(self.len, blocks);
        self.in_flight.store(blocks, SeqCst);
        if let Some(file) = &self.file {
            let bytes = blocks as usize * self.len;
            let spare = work.spare.take().filter(|spare| spare.capacity() == bytes);
            let (buffer, offset) = (spare.unwrap_or_else(|| Buffer::with_capacity(bytes)), work.offset);
            drop(work);
            if let Err(refused) = file.read_at(buffer, offset, Op::Flow(self.clone())) {
                self.broken(&refused.error);
                self.rest(port);
            }
            return;
        }
        let buffer = self.fill(&mut work, blocks);
        drop(work);
        self.hand_over(port, buffer);
    }

    /// A piece of the file is there.
    fn read(self: Arc<Self>, port: &Port, buffer: Buffer, result: std::io::Result<usize>) {
        match result {
            Ok(0) => {
                self.exhausted.store(true, SeqCst);
                // A client ends the test with the file; a server leaves that to its client.
                self.gate.tell(port, Op::Reached);
                self.rest(port);
            }
            Ok(bytes) => {
                self.work().offset += bytes as u64;
                self.in_flight.store(bytes.div_ceil(self.len) as u64, SeqCst);
                self.hand_over(port, buffer);
            }
            Err(error) => {
                self.broken(&error);
                self.rest(port);
            }
        }
    }

    fn hand_over(self: Arc<Self>, port: &Port, buffer: Buffer) {
        let refused = match &self.link {
            Link::Tcp(stream) => stream.send(buffer, Op::Flow(self.clone())).err(),
            Link::Udp(socket, _) => socket.send(buffer, Op::Flow(self.clone())).err(),
        };
        if let Some(refused) = refused {
            self.broken(&refused.error);
            self.rest(port);
        }
    }

    fn give_back(&self, blocks: u64) {
        if self.gate.limited.load(Relaxed) {
            self.gate.blocks.fetch_add(blocks as i64, SeqCst);
        }
    }

    fn fill(&self, work: &mut Work, blocks: u64) -> Buffer {
        let count = blocks as usize;
        let udp = matches!(self.link, Link::Udp(..));
        if !udp && !self.verify {
            return work.payload.shared[blocks.ilog2() as usize].clone().into();
        }
        let mut memory = work.payload.own.take().unwrap_or_default();
        memory.truncate(count * self.len);
        while memory.len() < count * self.len {
            memory.extend_from_slice(work.payload.block());
        }
        let sent = self.gate.origin.elapsed();
        for block in memory.chunks_exact_mut(self.len) {
            if udp {
                work.number += 1;
                Header { sent, sequence: work.number }.write(block, self.wide);
                if self.verify {
                    if !self.wide {
                        block[12..16].copy_from_slice(&(self.info.id as u32).to_be_bytes());
                    }
                    verify::seal_datagram(block);
                }
            } else {
                verify::seal(block, self.info.id, work.number);
                work.number += 1;
            }
        }
        memory.into()
    }

    /// The stream is of no use any more; the test goes on, and its report says why.
    fn broken(&self, why: &std::io::Error) {
        if !self.ended.swap(true, SeqCst) && self.gate.open.load(SeqCst) {
            self.work().broke.get_or_insert_with(|| why.to_string());
        }
    }

    // --- Receiving ---

    pub(crate) fn begin_receiving(self: &Arc<Self>) {
        let bytes = match &self.link {
            Link::Tcp(_) => (RECEIVE_BYTES_TOGETHER / self.streams).clamp(RECEIVE_BYTES_MIN, RECEIVE_BYTES),
            Link::Udp(..) => 1 << 16,
        };
        self.clone().receive(Buffer::with_capacity(bytes));
    }

    /// Bytes of a TCP stream have come, and count.
    fn arrived(&self, port: &Port, bytes: u64) {
        let before = self.bytes.fetch_add(bytes, SeqCst);
        let len = self.len as u64;
        self.gate.count(port, &self.gate.received, bytes, (before + bytes) / len - before / len);
    }

    /// What arrived goes to the file before more is received.
    fn store(self: Arc<Self>, buffer: Buffer) {
        let Some(file) = &self.file else { return };
        self.writing.store(true, SeqCst);
        let offset = self.work().offset;
        if let Err(refused) = file.write_at(buffer, offset, Op::Flow(self.clone())) {
            self.writing.store(false, SeqCst);
            self.broken(&refused.error);
        }
    }

    fn written(self: Arc<Self>, port: &Port, buffer: Buffer, result: std::io::Result<usize>) {
        match result {
            Ok(bytes) => {
                self.work().offset += bytes as u64;
                self.arrived(port, bytes as u64);
                self.clone().receive(buffer);
                self.writing.store(false, SeqCst);
            }
            Err(error) => {
                self.writing.store(false, SeqCst);
                self.broken(&error);
            }
        }
    }

    fn receive(self: Arc<Self>, buffer: Buffer) {
        let refused = match &self.link {
            Link::Tcp(stream) => stream.recv(buffer, Op::Flow(self.clone())).err(),
            Link::Udp(socket, _) => socket.recv_from(buffer, Op::Flow(self.clone())).err(),
        };
        if let Some(refused) = refused {
            self.broken(&refused.error);
        }
    }

    fn datagrams(&self, port: &Port, bytes: &[u8], segment: usize) {
        let arrived = self.gate.origin.elapsed();
        let mut work = self.work();
        let work = &mut *work;
        let mut taken = (0, 0);
        for datagram in bytes.chunks(if segment == 0 { bytes.len().max(1) } else { segment }) {
            let header = if datagram.len() >= self.header { Header::read(datagram, self.wide) } else { None };
            let Some(header) = header else {
                if datagram::is_hello(datagram) {
                    // Its answer was lost. Nothing is sent while the test runs: it would be data to the peer.
                    if let (Link::Udp(socket, _), false) = (&self.link, self.gate.open.load(SeqCst)) {
                        let _ = socket.send(&datagram::REPLY, Op::Nothing);
                    }
                } else {
                    self.gate.foreign.fetch_add(1, Relaxed);
                }
                continue;
            };
            work.account.datagram(&header, arrived);
            if let Some(checker) = &mut work.checker {
                checker.datagram(datagram);
            }
            taken.0 += datagram.len().min(self.len) as u64;
            taken.1 += 1;
        }
        self.bytes.fetch_add(taken.0, SeqCst);
        self.gate.count(port, &self.gate.received, taken.0, taken.1);
    }

    // --- Both ---

    pub(crate) fn completed(self: Arc<Self>, port: &Port, event: Event<(), Op>) {
        match event {
            Event::Sent { buffer, result, .. } | Event::SentTo { buffer, result, .. } => {
                self.sent(port, buffer, result)
            }
            Event::Received { result: Ok(0), .. } => {
                self.broken(&std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the peer has closed the stream"));
            }
            Event::Received { buffer, result: Ok(bytes), .. } => {
                if self.file.is_some() {
                    // It counts when it is in the file.
                    return self.store(buffer);
                }
                // Only a verified stream has a checker; otherwise no byte is looked at, and no lock taken.
                if self.verify {
                    if let Some(checker) = &mut self.work().checker {
                        checker.bytes(&buffer);
                    }
                }
                self.arrived(port, bytes as u64);
                self.receive(buffer);
            }
            Event::Read { buffer, result, .. } => self.read(port, buffer, result),
            Event::Written { buffer, result, .. } => self.written(port, buffer, result),
            Event::Received { result: Err(error), .. } => self.broken(&error),
            Event::ReceivedFrom { buffer, from, segment_bytes, result, .. } => {
                let foreign = matches!((&self.link, from), (Link::Udp(_, peer), Some(from)) if *peer != from);
                match result {
                    _ if self.ended.load(SeqCst) => return,
                    // Between being bound and being connected, this socket may have got what another client said first.
                    Ok(_) if foreign && datagram::is_hello(&buffer) => {
                        let server = self.gate.session.upgrade().and_then(|session| session.server.clone());
                        if let (Some(server), Some(from)) = (server, from) {
                            server.hello_of(from);
                        }
                    }
                    _ if foreign => drop(self.gate.foreign.fetch_add(1, Relaxed)),
                    Ok(_) => self.datagrams(port, &buffer, segment_bytes),
                    // Port unreachable and the like: of the network, and gone with the next datagram.
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
                    Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {}
                    Err(error) => return self.broken(&error),
                }
                self.receive(buffer);
            }
            _ => {}
        }
    }

    fn sent(self: Arc<Self>, port: &Port, buffer: Buffer, result: std::io::Result<usize>) {
        let blocks = self.in_flight.load(SeqCst);
        let owned = self.verify || matches!(self.link, Link::Udp(..));
        if owned {
            self.work().payload.own = Some(buffer.into_vec());
        } else if self.file.is_some() {
            self.work().spare = Some(buffer);
        }
        match result {
            Ok(bytes) => {
                self.bytes.fetch_add(bytes as u64, SeqCst);
                self.packets.fetch_add(blocks, SeqCst);
                self.gate.count(port, &self.gate.sent, bytes as u64, blocks);
            }
            Err(error) if matches!(self.link, Link::Udp(..)) && !self.ended.load(SeqCst) => {
                // The datagrams were numbered, and are lost as on the way; of an amount that was asked for they are no part.
                self.give_back(blocks);
                let code = error.raw_os_error();
                let mut work = self.work();
                if work.segmented && matches!(code, Some(libc::EIO | libc::EINVAL)) {
                    // This route cannot segment: one datagram a call from now on.
                    work.segmented = false;
                    self.join.store(1, Relaxed);
                    if let Link::Udp(socket, _) = &self.link {
                        let _ = socket.set_segment_bytes(None);
                    }
                } else if !matches!(code, Some(libc::ENOBUFS | libc::ECONNREFUSED | libc::EAGAIN)) {
                    drop(work);
                    self.broken(&error);
                }
            }
            Err(error) => self.broken(&error),
        }
        self.send(port);
    }
}
