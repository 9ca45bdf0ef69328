//! The fake network's datagrams: a *mailbox* is what a datagram socket has received and sent, and what it was refused.
//!
//! What arrives is numbered, and number and place tell each byte and the sender. Nothing gets lost here: what a port
//! may lose it would have lost in the real system's receive buffer. A refusal by the network is an error that one call
//! on the socket is told, as in Linux: of a connected socket, or of one whose refusals are kept in a list as well.

use super::calls::{read, write};
use super::{Call, Fake, Handle, Net, Pieces, Readiness, State, pattern};
use crate::op::{Datagram, RawBuffer};
use crate::sys::errno::{EAGAIN, ECONNREFUSED, EMSGSIZE};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};

/// The longest datagram that this network carries.
pub(crate) const CARRIED_MAX: usize = 300;
/// Refusals in a list.
const LIST_MAX: usize = 3;

#[derive(Debug, Default)]
pub(super) struct Mailbox {
    /// Lengths of those that have arrived; the first `taken` were received.
    arrived: Vec<usize>,
    taken: usize,
    sent: Vec<(Vec<u8>, Option<SocketAddr>)>,
    /// How many of these have left the machine, and how many may wait.
    gone: usize,
    capacity: usize,
    wants_space: bool,
    /// It is connected, and has its refusals in a list.
    peer: bool,
    listed: bool,
    /// What the next call is told, and the list.
    error: Option<i32>,
    refusals: VecDeque<SocketAddr>,
    /// Refusals that the network has made and a call was told of or has found in the list.
    refused: Vec<SocketAddr>,
    told: usize,
    handle: Option<Handle>,
    /// What has arrived and was not taken, where it is no pattern.
    letters: VecDeque<(Vec<u8>, SocketAddr)>,
    /// The longest datagram that may be sent, if it is not [`CARRIED_MAX`].
    longest: Option<usize>,
}

/// A network in real time.
#[cfg(feature = "fake")]
impl Mailbox {
    pub(super) fn carries(&mut self, longest: usize) {
        self.longest = Some(longest);
    }

    pub(super) fn connects(&mut self, peer: bool) {
        self.peer = peer;
    }

    /// Those that have not left yet.
    pub(super) fn leave(&mut self) -> Vec<(Vec<u8>, Option<SocketAddr>)> {
        let leaving = self.sent.split_off(self.gone);
        self.sent.clear();
        self.gone = 0;
        leaving
    }

    /// A datagram arrives; false when what waits leaves no room for it in a buffer of so many bytes.
    pub(super) fn takes(&mut self, bytes: Vec<u8>, from: SocketAddr, buffer: usize) -> bool {
        /// What a system keeps beside each, about.
        const BESIDE: usize = 512;
        let waiting: usize = self.letters.iter().map(|(bytes, _)| bytes.len() + BESIDE).sum();
        if waiting + bytes.len() + BESIDE > buffer {
            return false;
        }
        self.arrived.push(bytes.len());
        self.letters.push_back((bytes, from));
        true
    }
}

impl Mailbox {
    fn space(&self) -> usize {
        self.capacity - (self.sent.len() - self.gone)
    }

    pub(super) fn bits(&self) -> u8 {
        let mut bits = 0;
        let failed = self.error.is_some() || !self.refusals.is_empty();
        if failed {
            bits |= Readiness::ERROR;
        }
        if failed || self.taken < self.arrived.len() {
            bits |= Readiness::RECEIVE;
        }
        if failed || self.space() > 0 {
            bits |= Readiness::SEND;
        }
        bits
    }

    pub(super) fn close(&mut self) {
        self.handle = None;
    }

    fn fails(&mut self) -> Result<(), i32> {
        let error = self.error.take();
        if error.is_some() && !self.listed {
            self.told += 1;
        }
        error.map_or(Ok(()), Err)
    }
}

/// What a test sees of a mailbox.
#[derive(Clone, Debug)]
pub(crate) struct MailView {
    pub(crate) arrived: usize,
    pub(crate) taken: usize,
    pub(crate) space: usize,
    /// A call will be told of an error, or the list has one.
    pub(crate) failed: bool,
    /// Refusals that were told by a call, or taken from the list.
    pub(crate) told: usize,
}

/// Who sends a datagram.
pub(crate) fn sender(number: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(number % 60_000).unwrap() + 1))
}

/// The byte at a place of a datagram.
pub(crate) fn content(mailbox: usize, number: usize, at: usize) -> u8 {
    pattern(mailbox + 500_000, (number * CARRIED_MAX * 2 + at) as u64)
}

impl Net {
    fn mailbox(&mut self, handle: Handle) -> usize {
        match self.socket(handle).state {
            State::Mailbox(mailbox) => mailbox,
            ref other => panic!("handle {handle} is not a datagram socket but {other:?}"),
        }
    }

    fn take_one(&mut self, mailbox: usize, into: &[RawBuffer]) -> Result<Datagram, i32> {
        let one = &mut self.mailboxes[mailbox];
        one.fails()?;
        let number = one.taken;
        let Some(&length) = one.arrived.get(number) else { return Err(EAGAIN) };
        one.taken += 1;
        let letter = one.letters.pop_front();
        let byte = |at: usize| match &letter {
            Some((bytes, _)) => bytes[at],
            None => content(mailbox, number, at),
        };
        let places = into.iter().flat_map(|piece| (0..piece.length).map(move |at| (piece, at)));
        let mut bytes = 0;
        for (piece, at) in places.take(length) {
            write(piece, at, byte(bytes));
            bytes += 1;
        }
        let from = letter.as_ref().map_or_else(|| sender(number), |(_, from)| *from);
        Ok(Datagram { bytes, from: Some(from), truncated: bytes < length, segment: 0 })
    }

    fn send_one(&mut self, mailbox: usize, from: &[RawBuffer], to: Option<&SocketAddr>) -> Result<(), i32> {
        let one = &mut self.mailboxes[mailbox];
        assert!(to.is_some() || one.peer, "a datagram to nobody");
        one.fails()?;
        if from.iter().map(|piece| piece.length).sum::<usize>() > one.longest.unwrap_or(CARRIED_MAX) {
            return Err(EMSGSIZE);
        }
        if one.space() == 0 {
            one.wants_space = true;
            return Err(EAGAIN);
        }
        one.sent.push((from.iter().flat_map(read).copied().collect(), to.copied()));
        Ok(())
    }

    /// `EAGAIN` although it could go on; an edge follows.
    fn stalls(&mut self, handle: Handle, mailbox: usize, side: u8) -> Result<(), i32> {
        let again = self.faults.again;
        if self.mailboxes[mailbox].bits() & side != 0 && self.chance(again) {
            self.edge(handle, side);
            return Err(EAGAIN);
        }
        Ok(())
    }

    /// How many of several a call gets to; an edge tells of the rest.
    fn most(&mut self, handle: Handle, count: usize, side: u8) -> usize {
        let short = self.faults.short;
        if count > 1 && self.chance(short) {
            self.edge(handle, side);
            return self.rng.usize(1..count);
        }
        count
    }
}

/// The pieces of each datagram.
fn each(pieces: &Pieces) -> impl Iterator<Item = &[RawBuffer]> {
    let mut rest = pieces.all();
    pieces.counts().map(move |count| {
        let (own, others) = rest.split_at(count);
        rest = others;
        own
    })
}

/// The engine's calls.
impl Fake {
    pub(super) fn take(&self, handle: Handle, into: &[RawBuffer]) -> Result<Datagram, i32> {
        self.call(Call::Receive, handle, |net| {
            net.scripted(Call::Receive)?;
            let mailbox = net.mailbox(handle);
            net.stalls(handle, mailbox, Readiness::RECEIVE)?;
            net.take_one(mailbox, into)
        })
    }

    pub(super) fn take_many(&self, handle: Handle, into: &Pieces, found: &mut Vec<Datagram>) -> Result<(), i32> {
        self.call(Call::Receive, handle, |net| {
            net.scripted(Call::Receive)?;
            let mailbox = net.mailbox(handle);
            net.stalls(handle, mailbox, Readiness::RECEIVE)?;
            let most = net.most(handle, into.len(), Readiness::RECEIVE);
            for pieces in each(into).take(most) {
                // Behind the first an error stays for the next call, and gives no edge.
                if !found.is_empty() && net.mailboxes[mailbox].error.is_some() {
                    break;
                }
                match net.take_one(mailbox, pieces) {
                    Ok(datagram) => found.push(datagram),
                    Err(error) if found.is_empty() => return Err(error),
                    Err(_) => break,
                }
            }
            Ok(())
        })
    }

    pub(super) fn post(&self, handle: Handle, from: &[RawBuffer], to: Option<&SocketAddr>) -> Result<(), i32> {
        self.call(Call::Send, handle, |net| {
            net.scripted(Call::Send)?;
            let mailbox = net.mailbox(handle);
            net.stalls(handle, mailbox, Readiness::SEND)?;
            net.send_one(mailbox, from, to)
        })
    }

    pub(super) fn post_many(&self, handle: Handle, from: &Pieces, to: &[Option<SocketAddr>]) -> Result<usize, i32> {
        self.call(Call::Send, handle, |net| {
            net.scripted(Call::Send)?;
            let mailbox = net.mailbox(handle);
            let one = &net.mailboxes[mailbox];
            assert!(one.listed || !one.peer, "a refusal could be forgotten behind the first datagram");
            net.stalls(handle, mailbox, Readiness::SEND)?;
            let most = net.most(handle, from.len(), Readiness::SEND);
            let mut count = 0;
            for (pieces, to) in each(from).zip(to).take(most) {
                match net.send_one(mailbox, pieces, to.as_ref()) {
                    Ok(()) => count += 1,
                    Err(error) if count == 0 => return Err(error),
                    // Forgotten: whoever goes on meets it again, but for a refusal.
                    Err(_) => break,
                }
            }
            Ok(count)
        })
    }

    pub(super) fn list_refusals(&self, handle: Handle, keep: bool) {
        let mut net = self.net.lock();
        let mailbox = net.mailbox(handle);
        net.mailboxes[mailbox].listed = keep;
    }

    pub(super) fn next_refusal(&self, handle: Handle) -> Result<(i32, Option<SocketAddr>), i32> {
        self.call(Call::Receive, handle, |net| {
            let mailbox = net.mailbox(handle);
            let one = &mut net.mailboxes[mailbox];
            let Some(from) = one.refusals.pop_front() else { return Err(EAGAIN) };
            one.told += 1;
            // The system tells calls of the next in the list.
            one.error = (!one.refusals.is_empty()).then_some(ECONNREFUSED);
            Ok((ECONNREFUSED, Some(from)))
        })
    }

    pub(super) fn is_connected(&self, handle: Handle) -> bool {
        let mut net = self.net.lock();
        let mailbox = net.mailbox(handle);
        net.mailboxes[mailbox].peer
    }
}

/// What a test does in place of the system and the peers.
impl Fake {
    /// A datagram socket from which up to `capacity` datagrams may wait to leave.
    pub(crate) fn datagrams(&self, capacity: usize, peer: bool) -> (Handle, usize) {
        let mut net = self.net.lock();
        let mailbox = net.mailboxes.len();
        let handle = net.open(State::Mailbox(mailbox));
        net.mailboxes.push(Mailbox { capacity, peer, handle: Some(handle), ..Mailbox::default() });
        (handle, mailbox)
    }

    fn mail(&self, mailbox: usize, happen: impl FnOnce(&mut Mailbox) -> u8) {
        let mut net = self.net.lock();
        let Some(handle) = net.mailboxes[mailbox].handle else { return };
        let bits = happen(&mut net.mailboxes[mailbox]);
        net.edge(handle, bits);
        drop(net);
        self.net.notify_all();
    }

    pub(crate) fn datagram_arrives(&self, mailbox: usize, bytes: usize) {
        self.mail(mailbox, |one| {
            one.arrived.push(bytes);
            Readiness::RECEIVE
        });
    }

    /// Some of those that wait leave.
    pub(crate) fn datagrams_leave(&self, mailbox: usize, count: usize) {
        self.mail(mailbox, |one| {
            one.gone = (one.gone + count).min(one.sent.len());
            if one.space() > 0 && std::mem::take(&mut one.wants_space) { Readiness::SEND } else { 0 }
        });
    }

    /// The network refuses a datagram that was sent to this address.
    pub(crate) fn datagram_is_refused(&self, mailbox: usize, to: SocketAddr) {
        self.mail(mailbox, |one| {
            // A socket holds one error; the list has them all.
            if !one.listed && (!one.peer || one.error.is_some()) {
                return 0;
            }
            one.error = Some(ECONNREFUSED);
            // What a full list cannot take is told to a call all the same, but nobody knows whose it is.
            if one.refusals.len() < LIST_MAX {
                one.refused.push(to);
                if one.listed {
                    one.refusals.push_back(to);
                }
            }
            Readiness::RECEIVE | Readiness::SEND | Readiness::ERROR
        });
    }

    pub(crate) fn mailbox_view(&self, mailbox: usize) -> MailView {
        let net = self.net.lock();
        let one = &net.mailboxes[mailbox];
        MailView {
            arrived: one.arrived.len(),
            taken: one.taken,
            space: one.space(),
            failed: one.error.is_some() || !one.refusals.is_empty(),
            told: one.told,
        }
    }

    /// The length of a datagram that arrived.
    pub(crate) fn datagram_length(&self, mailbox: usize, number: usize) -> usize {
        self.net.lock().mailboxes[mailbox].arrived[number]
    }

    /// Those that the system took.
    pub(crate) fn datagrams_sent(&self, mailbox: usize) -> Vec<(Vec<u8>, Option<SocketAddr>)> {
        self.net.lock().mailboxes[mailbox].sent.clone()
    }

    /// The addresses of refusals, in order.
    pub(crate) fn datagrams_refused(&self, mailbox: usize) -> Vec<SocketAddr> {
        self.net.lock().mailboxes[mailbox].refused.clone()
    }
}
