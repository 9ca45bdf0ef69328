//! Datagram sockets in the schedules: receives and sends, one by one and by the batch, with truncation, refusals and
//! datagrams that are too long.
//!
//! Checked are: each receive takes one datagram, in the order of issue, with its bytes and its sender, and says whether
//! it was cut off; each send gives the network one datagram or fails, and those after a failed one go on; each refusal
//! is told once; none is told to a send of a socket that lists them.

use super::*;
use crate::raw::{Incoming, Outgoing};
use crate::testing::fake::{CARRIED_MAX, content, sender};

const EMSGSIZE: i32 = 90;

impl Model {
    /// A datagram socket, rarely one that is closed.
    fn pick_mailbox(&mut self) -> Option<usize> {
        let any = self.chance(12);
        self.pick(|socket| socket.mailbox.is_some() && (any || !socket.ending))
    }

    /// Up to a dozen, mostly few.
    fn batch(&mut self) -> usize {
        let most = *self.rng.choice(&[1, 1, 3, 12]).expect("not empty");
        self.rng.usize(1..=most)
    }
}

impl Schedule {
    pub(super) fn adopt_datagrams(&self) {
        let (handle, mailbox, key, listed, peer) = {
            let mut model = self.model.lock();
            let capacity = model.rng.usize(1..12);
            let peer = model.rng.bool();
            let (handle, mailbox) = self.fake.datagrams(capacity, peer);
            (handle, mailbox, model.rng.usize(..1000), model.rng.bool(), peer)
        };
        match self.port.take_over(handle, DeviceKind::Datagram, key) {
            Ok(device) => {
                // Nobody else knows it yet, unless the port is closed with it.
                if listed {
                    self.port.report_refusals(&device, true).expect("it is open");
                }
                // Under one lock: it is not to be taken for a stream.
                let mut model = self.model.lock();
                let socket = model.add_socket(device, false, None);
                model.sockets[socket].connected = true;
                model.sockets[socket].mailbox = Some(mailbox);
                model.sockets[socket].listed = listed;
                model.sockets[socket].peer = peer;
                model.mailboxes.push(mailbox);
            }
            Err(error) => {
                assert!(error == ENOSPC || error == EBADF && self.model.lock().closed, "adopting failed: {error}");
                self.fake.close(handle);
            }
        }
        self.drain();
    }

    #[allow(unsafe_code)]
    pub(super) fn receive_from(&self) {
        let (device, mut receives, tokens, alone) = {
            let mut model = self.model.lock();
            let Some(socket) = model.pick_mailbox() else { return };
            let count = model.batch();
            let mut receives = Vec::new();
            let mut tokens = Vec::new();
            for _ in 0..count {
                let token = model.add(Kind::ReceivedFrom, Some(socket), RECEIVE, self.fake.now());
                let sink = model.sink(token);
                let buffers = if model.chance(60) {
                    model.operations[token].total = RECEIVE_BYTES;
                    Buffers::Pooled
                } else {
                    let lengths = model.lengths();
                    // The first 1024 pieces that are not empty are used.
                    let lengths = if lengths.len() > 60 { vec![7] } else { lengths };
                    let pieces = model.memory(token, &lengths);
                    to_buffers(pieces, model.rng.bool())
                };
                receives.push(Incoming { buffers, token, sink });
                tokens.push(token);
            }
            let alone = count == 1 && model.rng.bool();
            (model.sockets[socket].device.clone(), receives, tokens, alone)
        };
        let refuse = self.must_refuse(tokens[0]);
        let results = if alone {
            let Incoming { buffers, token, sink } = receives.pop().expect("one");
            // SAFETY: the memory is the operation's, lives as long as the schedule, and is read after the completion.
            vec![unsafe { self.port.receive_from(&device, buffers, token, sink) }]
        } else {
            // SAFETY: as above, for each.
            unsafe { self.port.receive_from_many(&device, receives) }
        };
        self.issued_many(tokens, results, refuse);
    }

    #[allow(unsafe_code)]
    pub(super) fn send_to(&self) {
        let (device, mut datagrams, tokens, alone) = {
            let mut model = self.model.lock();
            let Some(socket) = model.pick_mailbox() else { return };
            let connected = model.sockets[socket].peer;
            let count = model.batch();
            let mut datagrams = Vec::new();
            let mut tokens = Vec::new();
            for _ in 0..count {
                let token = model.add(Kind::SentTo, Some(socket), SEND, self.fake.now());
                let sink = model.sink(token);
                let lengths = model.lengths();
                let pieces = model.memory(token, &lengths);
                let to = (!connected || model.rng.bool()).then(|| sender(token));
                let operation = &mut model.operations[token];
                operation.to = to;
                let places = operation.pieces.iter().flat_map(|&(at, length)| at..at + length);
                for (nth, at) in places.enumerate() {
                    operation.memory[at].store(pattern(token + 1000, nth as u64), Ordering::Relaxed);
                }
                datagrams.push(Outgoing { buffers: to_buffers(pieces, model.rng.bool()), to, token, sink });
                tokens.push(token);
            }
            let alone = count == 1 && model.rng.bool();
            (model.sockets[socket].device.clone(), datagrams, tokens, alone)
        };
        let refuse = self.must_refuse(tokens[0]);
        let results = if alone {
            let Outgoing { buffers, to, token, sink } = datagrams.pop().expect("one");
            // SAFETY: the memory is the operation's, lives as long as the schedule, and does not change.
            vec![unsafe { self.port.send_to(&device, buffers, to, token, sink) }]
        } else {
            // SAFETY: as above, for each.
            unsafe { self.port.send_to_many(&device, datagrams) }
        };
        self.issued_many(tokens, results, refuse);
    }

    fn issued_many(&self, tokens: Vec<usize>, results: Vec<Result<Issued, i32>>, refuse: bool) {
        assert_eq!(tokens.len(), results.len());
        for (token, issued) in tokens.into_iter().zip(results) {
            self.issued(token, issued, refuse);
        }
    }

    /// What happens at the other end.
    pub(super) fn datagram_peer(&self) {
        let (what, mailbox, amount) = {
            let mut model = self.model.lock();
            let count = model.mailboxes.len();
            if count == 0 {
                return;
            }
            let nth = model.rng.usize(count.saturating_sub(4)..count);
            let mailbox = model.mailboxes[nth];
            (model.rng.u8(..16), mailbox, model.rng.usize(..60))
        };
        match what {
            0..8 => (0..=amount % 9).for_each(|nth| self.fake.datagram_arrives(mailbox, (amount * 7 + nth * 5) % 60)),
            8..13 => self.fake.datagrams_leave(mailbox, 1 + amount % 12),
            _ => self.fake.datagram_is_refused(mailbox, sender(amount)),
        }
    }
}

impl Model {
    /// Whether an operation of a datagram socket may end so.
    pub(super) fn datagram_may_end(operation: &Operation, listed: bool, error: i32, bytes: usize) -> bool {
        match (error, operation.kind) {
            (0 | EMSGSIZE, Kind::ReceivedFrom) => bytes <= operation.total,
            (0, Kind::SentTo) => bytes == operation.total && bytes <= CARRIED_MAX,
            (EMSGSIZE, Kind::SentTo) => operation.total > CARRIED_MAX && bytes == 0,
            (ECONNREFUSED, Kind::ReceivedFrom) => bytes == 0,
            // It is told to a receive; a send hears of it only where there is no list.
            (ECONNREFUSED, Kind::SentTo) => !listed && bytes == 0,
            _ => false,
        }
    }

    pub(super) fn check_mailbox(&self, mailbox: usize, fake: &Fake) {
        let view = fake.mailbox_view(mailbox);
        let socket = self.sockets.iter().find(|socket| socket.mailbox == Some(mailbox)).expect("it was adopted");
        let (mut taken, mut told, mut listed) = (0, 0, Vec::new());
        for &token in &socket.operations[RECEIVE] {
            let operation = &self.operations[token];
            let Fate::Done { error, bytes, .. } = operation.fate else { continue };
            match error {
                0 | EMSGSIZE => {
                    let length = fake.datagram_length(mailbox, taken);
                    let expected = (0..bytes).map(|at| content(mailbox, taken, at));
                    let right = if operation.memory.is_empty() {
                        expected.eq(operation.pooled.iter().copied())
                    } else {
                        expected.eq(operation.bytes().take(bytes))
                    };
                    assert!(right, "operation {token}: not the bytes of datagram {taken}");
                    assert_eq!(bytes, length.min(operation.total), "operation {token}, datagram {taken}");
                    assert_eq!(error == EMSGSIZE, bytes < length, "operation {token}: cut off, or not");
                    assert_eq!(operation.from, Some(sender(taken)), "operation {token}");
                    taken += 1;
                }
                ECONNREFUSED => {
                    told += 1;
                    listed.extend(operation.from);
                }
                _ => {}
            }
        }
        assert_eq!(taken, view.taken, "mailbox {mailbox}: datagrams were received and not reported");
        let mut sent = fake.datagrams_sent(mailbox).into_iter();
        for &token in &socket.operations[SEND] {
            let operation = &self.operations[token];
            let Fate::Done { error, .. } = operation.fate else { continue };
            match error {
                0 => {
                    let (bytes, to) = sent.next().expect("a send that is said to have gone");
                    assert!(operation.bytes().eq(bytes) && operation.to == to, "operation {token} sent something else");
                }
                ECONNREFUSED => told += 1,
                _ => {}
            }
        }
        assert_eq!(sent.count(), 0, "mailbox {mailbox}: datagrams were sent and not reported");
        assert_eq!(told, view.told, "mailbox {mailbox}: refusals that were told twice, or to nobody");
        if socket.listed {
            assert_eq!(listed, fake.datagrams_refused(mailbox)[..told], "whose refusals, in order");
        }
    }
}
