//! The receiving end of a stream: one receive outstanding at a time, and when it completes the next one. With a file, a
//! receive and a write in turns.

use super::base::{Carrier, StreamBase};
use super::payload::Payload;
use crate::measure::account::Account;
use crate::measure::figures::Snapshot;
use crate::measure::verify::Checker;
use crate::protocol::datagram::{self, Header};
use crate::protocol::parameters::Parameters;
use crate::protocol::results::Verification;
use crate::surroundings::port::{Op, Owner, Port};
use crate::surroundings::system;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wharf::{Buffer, Event};

/// Bytes of one receive of TCP; from nine streams on fewer, so that their buffers together stay in the cache.
const RECEIVE_BYTES: usize = 512 * 1024;
const RECEIVE_BYTES_MIN: usize = 128 * 1024;
const RECEIVE_BYTES_TOGETHER: usize = 4 << 20;
/// Bytes of one receive of UDP: more than the largest datagram has.
const RECEIVE_DATAGRAMS_BYTES: usize = 1 << 16;

/// One receiving stream.
pub(crate) struct Receiver {
    pub(super) base: StreamBase,
    /// A write to the file is outstanding.
    writing: AtomicBool,
    receive_bytes: usize,
    /// Bytes in front of a datagram's payload.
    header_bytes: usize,
    work: Mutex<Work>,
}

struct Work {
    account: Account,
    checker: Option<Checker>,
    /// Bytes of the file that were written.
    offset: u64,
}

impl Receiver {
    /// A stream whose end receives from now on.
    pub(super) fn begin(base: StreamBase, parameters: &Parameters, payload: &Payload) -> Arc<Receiver> {
        let receive_bytes = match &base.carrier {
            Carrier::Tcp(_) => {
                let streams = parameters.streams().max(1);
                (RECEIVE_BYTES_TOGETHER / streams).clamp(RECEIVE_BYTES_MIN, RECEIVE_BYTES)
            }
            Carrier::Udp(socket, _) => {
                let _ = socket.set_receive_offload(true);
                RECEIVE_DATAGRAMS_BYTES
            }
        };
        let checker = parameters.verify.then(|| Checker::new(payload.block().clone(), base.info.id, parameters.len));
        let receiver = Arc::new(Receiver {
            base,
            writing: AtomicBool::new(false),
            receive_bytes,
            header_bytes: parameters.header_bytes(),
            work: Mutex::new(Work { account: Account::default(), checker, offset: 0 }),
        });
        receiver.clone().receive(Buffer::with_capacity(receiver.receive_bytes));
        receiver
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream's counters.
    pub(super) fn snapshot(&self) -> Snapshot {
        let bytes = self.base.bytes();
        if !self.base.is_udp() {
            return Snapshot { bytes, ..Snapshot::default() };
        }
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

    /// What the look at each block has brought.
    pub(super) fn verification(&self) -> Option<Verification> {
        self.work().checker.as_ref().map(|checker| checker.found)
    }

    /// It writes what arrives to a file, and has not written all of it yet.
    pub(super) fn is_storing(&self) -> bool {
        let Some(stream) = self.base.tcp().filter(|_| self.base.file.is_some()) else { return false };
        self.writing.load(SeqCst) || !self.base.has_ended() && system::unread_bytes(stream) > 0
    }

    fn receive(self: Arc<Self>, buffer: Buffer) {
        let refused = match &self.base.carrier {
            Carrier::Tcp(stream) => stream.recv(buffer, Op::of(self.clone())).err(),
            Carrier::Udp(socket, _) => socket.recv_from(buffer, Op::of(self.clone())).err(),
        };
        if let Some(refused) = refused {
            self.base.broken(&refused.error);
        }
    }

    // --- TCP ---

    fn received(self: Arc<Self>, port: &Port, buffer: Buffer, bytes: usize) {
        if self.base.file.is_some() {
            // It counts when it is in the file.
            return self.store(buffer);
        }
        // Only a verified stream has a checker; otherwise no byte is looked at, and no lock taken.
        if self.base.verify {
            if let Some(checker) = &mut self.work().checker {
                checker.bytes(&buffer);
            }
        }
        self.arrived(port, bytes as u64);
        self.receive(buffer);
    }

    /// Bytes have come, and count.
    fn arrived(&self, port: &Port, bytes: u64) {
        let before = self.base.add_bytes(bytes);
        let len = self.base.len as u64;
        self.base.control.count_received(port, bytes, (before + bytes) / len - before / len);
    }

    /// What arrived goes to the file before more is received.
    fn store(self: Arc<Self>, buffer: Buffer) {
        let Some(file) = &self.base.file else { return };
        self.writing.store(true, SeqCst);
        let offset = self.work().offset;
        if let Err(refused) = file.write_at(buffer, offset, Op::of(self.clone())) {
            self.writing.store(false, SeqCst);
            self.base.broken(&refused.error);
        }
    }

    fn written(self: Arc<Self>, port: &Port, buffer: Buffer, result: io::Result<usize>) {
        match result {
            Ok(bytes) => {
                self.work().offset += bytes as u64;
                self.arrived(port, bytes as u64);
                self.clone().receive(buffer);
                self.writing.store(false, SeqCst);
            }
            Err(error) => {
                self.writing.store(false, SeqCst);
                self.base.broken(&error);
            }
        }
    }

    // --- UDP ---

    fn datagrams(&self, port: &Port, bytes: &[u8], segment: usize) {
        let control = &self.base.control;
        let arrived = control.origin.elapsed();
        let mut work = self.work();
        let work = &mut *work;
        let mut taken = (0, 0);
        for datagram in bytes.chunks(if segment == 0 { bytes.len().max(1) } else { segment }) {
            let is_whole = datagram.len() >= self.header_bytes;
            let Some(header) = is_whole.then(|| Header::read(datagram, self.base.wide)).flatten() else {
                if datagram::is_hello(datagram) {
                    // Its answer was lost. Nothing is sent while the test runs: it would be data to the peer.
                    if let (Carrier::Udp(socket, _), false) = (&self.base.carrier, control.is_open()) {
                        let _ = socket.send(&datagram::REPLY, Op::Nothing);
                    }
                } else {
                    control.foreign.fetch_add(1, Relaxed);
                }
                continue;
            };
            work.account.datagram(&header, arrived);
            if let Some(checker) = &mut work.checker {
                checker.datagram(datagram);
            }
            taken.0 += datagram.len().min(self.base.len) as u64;
            taken.1 += 1;
        }
        self.base.add_bytes(taken.0);
        control.count_received(port, taken.0, taken.1);
    }
}

impl Owner for Receiver {
    fn completed(self: Arc<Self>, port: &Port, _: u64, event: Event<(), Op>) {
        match event {
            Event::Received { result: Ok(0), .. } => {
                let error = io::Error::new(io::ErrorKind::UnexpectedEof, "the peer has closed the stream");
                self.base.broken(&error);
            }
            Event::Received { buffer, result: Ok(bytes), .. } => self.received(port, buffer, bytes),
            Event::Received { result: Err(error), .. } => self.base.broken(&error),
            Event::Written { buffer, result, .. } => self.written(port, buffer, result),
            Event::ReceivedFrom { buffer, from, segment_bytes, result, .. } => {
                let stranger = match &self.base.carrier {
                    Carrier::Udp(_, peer) => from.filter(|from| from != peer),
                    Carrier::Tcp(_) => None,
                };
                match (result, stranger) {
                    _ if self.base.has_ended() => return,
                    // Between being bound and being connected, this socket may have got what another client said first.
                    (Ok(_), Some(from)) if datagram::is_hello(&buffer) => self.base.control.stray_hello(from),
                    (_, Some(_)) => drop(self.base.control.foreign.fetch_add(1, Relaxed)),
                    (Ok(_), None) => self.datagrams(port, &buffer, segment_bytes),
                    // Port unreachable and the like: of the network, and gone with the next datagram.
                    (Err(error), None) if system::is_refusal(&error) => {}
                    (Err(error), None) if system::is_too_long(&error) => {}
                    (Err(error), None) => return self.base.broken(&error),
                }
                self.receive(buffer);
            }
            _ => {}
        }
    }
}
