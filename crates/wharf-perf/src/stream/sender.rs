//! The sending end of a stream: one send outstanding at a time, and when it completes the next one. With a file, a read
//! and a send in turns.

use super::base::{Carrier, StreamBase};
use super::payload::{Payload, joined_blocks};
use super::send_control::News;
use crate::measure::figures::Snapshot;
use crate::measure::pace::Pacer;
use crate::measure::verify;
use crate::protocol::datagram::Header;
use crate::protocol::parameters::{Parameters, Protocol};
use crate::surroundings::port::{Op, Owner, Port};
use crate::surroundings::system;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use wharf::{Buffer, Event};

/// The shortest sleep of a sender that keeps a rate. What is due then goes in one call.
const NAP: Duration = Duration::from_micros(200);

/// One sending stream.
pub(crate) struct Sender {
    pub(super) base: StreamBase,
    /// The file was sent to its end.
    exhausted: AtomicBool,
    /// Most blocks of one send.
    join: AtomicU64,
    /// Datagrams or blocks sent.
    packets: AtomicU64,
    /// Blocks of the send that is outstanding.
    in_flight: AtomicU64,
    work: Mutex<Work>,
}

struct Work {
    pacer: Pacer,
    payload: Payload,
    /// The stream's own memory, where blocks differ.
    memory: Option<Vec<u8>>,
    /// Of the next block.
    number: u64,
    segmented: bool,
    /// Bytes of the file that were read.
    offset: u64,
    /// For the next read of the file.
    spare: Option<Buffer>,
}

impl Sender {
    pub(super) fn new(base: StreamBase, parameters: &Parameters, payload: &Payload) -> Arc<Sender> {
        let mut segmented = false;
        if let Carrier::Udp(socket, _) = &base.carrier {
            let len = u16::try_from(parameters.len).unwrap_or(u16::MAX);
            segmented = joined_blocks(parameters) > 1 && socket.set_segment_bytes(Some(len)).is_ok();
        }
        let udp = parameters.protocol == Protocol::Udp;
        let gap = Duration::from_micros(parameters.send_interval_us);
        let work = Work {
            pacer: Pacer::new(parameters.bandwidth, parameters.burst, gap),
            payload: payload.clone(),
            memory: None,
            number: 0,
            segmented,
            offset: 0,
            spare: None,
        };
        Arc::new(Sender {
            base,
            exhausted: AtomicBool::new(false),
            join: AtomicU64::new(if udp && !segmented { 1 } else { joined_blocks(parameters) }),
            packets: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            work: Mutex::new(work),
        })
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream's counters. `tcp`: with what the kernel says; under the test's lock.
    pub(super) fn snapshot(&self, tcp: bool) -> Snapshot {
        let bytes = self.base.bytes();
        match &self.base.carrier {
            Carrier::Tcp(stream) => {
                let tcp = tcp.then(|| system::tcp_sample(stream)).flatten();
                Snapshot { bytes, tcp, ..Snapshot::default() }
            }
            Carrier::Udp(..) => Snapshot { bytes, packets: self.packets.load(SeqCst), ..Snapshot::default() },
        }
    }

    /// Nothing moves on it any more: it broke, or its file is at the end.
    pub(super) fn is_over(&self) -> bool {
        self.base.has_ended() || self.exhausted.load(SeqCst)
    }

    /// The longest time between two sends, if nothing holds them up.
    pub(super) fn pause(&self) -> Duration {
        self.work().pacer.pause(self.base.len)
    }

    /// Sends, for the first time or when a paced sender wakes.
    pub(super) fn begin(self: Arc<Self>, port: &Port) {
        self.base.control.wake();
        self.send(port);
    }

    fn send(self: Arc<Self>, port: &Port) {
        let control = &self.base.control;
        if !control.is_open() || self.base.has_ended() {
            return control.rest(port);
        }
        let mut work = self.work();
        let mut most = self.join.load(Relaxed);
        if !work.pacer.is_unlimited() {
            let now = Instant::now();
            if let Some(wait) = work.pacer.wait(now) {
                let nap = if work.pacer.keeps_a_gap() { Duration::ZERO } else { NAP };
                drop(work);
                // Not counted as outstanding while it sleeps: a test must not wait for it at its end.
                control.rest(port);
                let _ = port.timer(wait.max(nap), (), Op::of(self));
                return;
            }
            most = work.pacer.allowance(now, self.base.len, most);
        }
        let blocks = control.take(most);
        if blocks == 0 {
            drop(work);
            return control.rest(port);
        }
        let blocks = match &self.base.carrier {
            // Of shared bytes there are 1, 2, 4 … blocks.
            Carrier::Tcp(_) if !self.base.verify => {
                let power = 1 << blocks.ilog2();
                control.give_back(blocks - power);
                power
            }
            _ => blocks,
        };
        work.pacer.sent(self.base.len, blocks);
        self.in_flight.store(blocks, SeqCst);
        if let Some(file) = &self.base.file {
            let bytes = blocks as usize * self.base.len;
            let spare = work.spare.take().filter(|spare| spare.capacity() == bytes);
            let (buffer, offset) = (spare.unwrap_or_else(|| Buffer::with_capacity(bytes)), work.offset);
            drop(work);
            if let Err(refused) = file.read_at(buffer, offset, Op::of(self.clone())) {
                self.base.broken(&refused.error);
                control.rest(port);
            }
            return;
        }
        let buffer = self.fill(&mut work, blocks);
        drop(work);
        self.hand_over(port, buffer);
    }

    /// A piece of the file is there.
    fn read(self: Arc<Self>, port: &Port, buffer: Buffer, result: io::Result<usize>) {
        match result {
            Ok(0) => {
                self.exhausted.store(true, SeqCst);
                // A client ends the test with the file; a server leaves that to its client.
                self.base.control.tell(port, News::Reached);
                self.base.control.rest(port);
            }
            Ok(bytes) => {
                self.work().offset += bytes as u64;
                self.in_flight.store(bytes.div_ceil(self.base.len) as u64, SeqCst);
                self.hand_over(port, buffer);
            }
            Err(error) => {
                self.base.broken(&error);
                self.base.control.rest(port);
            }
        }
    }

    fn hand_over(self: Arc<Self>, port: &Port, buffer: Buffer) {
        let refused = match &self.base.carrier {
            Carrier::Tcp(stream) => stream.send(buffer, Op::of(self.clone())).err(),
            Carrier::Udp(socket, _) => socket.send(buffer, Op::of(self.clone())).err(),
        };
        if let Some(refused) = refused {
            self.base.broken(&refused.error);
            self.base.control.rest(port);
        }
    }

    fn fill(&self, work: &mut Work, blocks: u64) -> Buffer {
        let (len, udp) = (self.base.len, self.base.is_udp());
        if !udp && !self.base.verify {
            return work.payload.blocks(blocks).into();
        }
        let bytes = blocks as usize * len;
        let mut memory = work.memory.take().unwrap_or_default();
        memory.truncate(bytes);
        while memory.len() < bytes {
            memory.extend_from_slice(work.payload.block());
        }
        let sent = self.base.control.origin.elapsed();
        for block in memory.chunks_exact_mut(len) {
            if udp {
                work.number += 1;
                Header { sent, sequence: work.number }.write(block, self.base.wide);
                if self.base.verify {
                    if !self.base.wide {
                        block[12..16].copy_from_slice(&(self.base.info.id as u32).to_be_bytes());
                    }
                    verify::seal_datagram(block);
                }
            } else {
                verify::seal(block, self.base.info.id, work.number);
                work.number += 1;
            }
        }
        memory.into()
    }

    fn sent(self: Arc<Self>, port: &Port, buffer: Buffer, result: io::Result<usize>) {
        let blocks = self.in_flight.load(SeqCst);
        let owned = self.base.verify || self.base.is_udp();
        if owned {
            self.work().memory = Some(buffer.into_vec());
        } else if self.base.file.is_some() {
            self.work().spare = Some(buffer);
        }
        match result {
            Ok(bytes) => {
                self.base.add_bytes(bytes as u64);
                self.packets.fetch_add(blocks, SeqCst);
                self.base.control.count_sent(port, bytes as u64, blocks);
            }
            Err(error) if self.base.is_udp() && !self.base.has_ended() => {
                // The datagrams were numbered, and are lost as on the way; of an amount that was asked for they are no
                // part.
                self.base.control.give_back(blocks);
                let mut work = self.work();
                if work.segmented && system::cannot_segment(&error) {
                    // This route cannot segment: one datagram a call from now on.
                    work.segmented = false;
                    self.join.store(1, Relaxed);
                    if let Carrier::Udp(socket, _) = &self.base.carrier {
                        let _ = socket.set_segment_bytes(None);
                    }
                } else if !system::passes(&error) {
                    drop(work);
                    self.base.broken(&error);
                }
            }
            Err(error) => self.base.broken(&error),
        }
        self.send(port);
    }
}

impl Owner for Sender {
    fn completed(self: Arc<Self>, port: &Port, _: u64, event: Event<(), Op>) {
        match event {
            Event::Sent { buffer, result, .. } | Event::SentTo { buffer, result, .. } => {
                self.sent(port, buffer, result)
            }
            Event::Read { buffer, result, .. } => self.read(port, buffer, result),
            Event::Elapsed { .. } => self.begin(port),
            _ => {}
        }
    }
}
