#![cfg(test)]
//! The peers: how they read, write and end.

use super::{FRAME_MOST, Heard, Schedule, ms};
use fastrand::Rng;

/// How a peer reads what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    All,
    /// So much at most at a time.
    Slowly(usize),
    Never,
    /// So much, and then no more.
    UpTo(usize),
}

/// What a peer does when it acts: how often, of 256 times.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    pub(super) reads: Reads,
    reads_often: u8,
    says: u8,
    /// Bytes that it writes at a time: one is typing.
    says_most: usize,
    finishes: u8,
    resets: u8,
}

impl Habits {
    /// It reads nothing, says nothing, and stays.
    pub(super) const SILENT: Habits =
        Habits { reads: Reads::Never, reads_often: 255, says: 0, says_most: 1, finishes: 0, resets: 0 };

    pub(super) fn drawn(rng: &mut Rng) -> Habits {
        let reads = match rng.u8(..8) {
            0..3 => Reads::All,
            3..5 => Reads::Slowly(rng.usize(1..60)),
            5 => Reads::Slowly(rng.usize(60..600)),
            6 => Reads::UpTo(rng.usize(..400)),
            _ => Reads::Never,
        };
        let mut seldom = |most: u8| if rng.u8(..3) == 0 { rng.u8(1..=most) } else { 0 };
        let (finishes, resets) = (seldom(40), seldom(16));
        Habits {
            reads,
            reads_often: rng.u8(60..=255),
            says: if rng.bool() { rng.u8(..) } else { 0 },
            says_most: if rng.bool() { 1 } else { rng.usize(1..800) },
            finishes,
            resets,
        }
    }
}

/// What a peer will write: anything, or frames, of which one may be too long.
pub(super) fn script(rng: &mut Rng, is_framed: bool) -> Vec<u8> {
    let mut script = Vec::new();
    if !is_framed {
        script.extend((0..rng.usize(..3000)).map(|_| rng.u8(..)));
        return script;
    }
    for _ in 0..rng.usize(..30) {
        let too_long = rng.u8(..64) == 0;
        let length = if too_long { FRAME_MOST + 1 } else { rng.usize(..=FRAME_MOST) / rng.usize(1..20) };
        script.extend((length as u16).to_be_bytes());
        script.extend((0..length).map(|_| rng.u8(..)));
        if too_long {
            break;
        }
    }
    script
}

impl Schedule {
    pub(super) fn all_peers_act(&self) {
        let count = self.model().parties.len();
        (0..count).for_each(|index| self.peer_acts(index));
    }

    pub(super) fn one_peer_acts(&self) {
        let index = {
            let mut model = self.model();
            let count = model.parties.len();
            if count == 0 {
                return;
            }
            model.rng.usize(..count)
        };
        self.peer_acts(index);
    }

    fn peer_acts(&self, index: usize) {
        self.find_connection(index);
        let (connection, habits, reads, says, finishes, resets) = {
            let mut model = self.model();
            let party = &model.parties[index];
            let (habits, Some(connection)) = (party.habits, party.connection) else { return };
            if party.peer_reset || party.heard == Some(Heard::Reset) {
                return;
            }
            let mut chance = |of: u8| model.chance(of);
            let reads = chance(habits.reads_often);
            (connection, habits, reads, chance(habits.says), chance(habits.finishes), chance(habits.resets))
        };
        let view = self.fake.view(connection);
        if view.broken {
            return;
        }
        let most = match habits.reads {
            Reads::All => usize::MAX,
            Reads::Slowly(most) => self.model().rng.usize(1..=most),
            Reads::Never => 0,
            Reads::UpTo(most) => most.saturating_sub(view.read),
        };
        let count = most.min(view.sent - view.read);
        if reads && count > 0 {
            self.fake.peer_reads(connection, count);
            let now = self.time();
            let mut model = self.model();
            let party = &mut model.parties[index];
            party.stir(now);
            // Between the look at what has arrived and the close.
            if self.silent.get() && party.conn.upgrade().is_some_and(|conn| conn.is_reckoned()) {
                party.raced += count as u64;
            }
        }
        if says {
            self.peer_says(index, connection, habits.says_most);
        }
        if finishes {
            self.fake.peer_finishes(connection);
            self.model().parties[index].peer_finished = true;
        }
        if resets {
            let loses = {
                let mut model = self.model();
                model.parties[index].peer_reset = true;
                model.rng.bool()
            };
            self.fake.peer_resets(connection, loses);
        }
    }

    fn peer_says(&self, index: usize, connection: usize, most: usize) {
        let piece = {
            let mut model = self.model();
            let most = model.rng.usize(1..=most);
            let party = &mut model.parties[index];
            if party.peer_finished {
                return;
            }
            let upto = (party.said + most).min(party.script.len());
            let piece = party.script[party.said..upto].to_vec();
            party.said = upto;
            piece
        };
        if !piece.is_empty() {
            let now = self.time();
            self.model().parties[index].moved = now;
            self.fake.peer_says(connection, &piece);
        }
    }

    /// Connects that have waited long enough are answered, well or not; some never are.
    pub(super) fn connects_end(&self) {
        for (handle, target) in self.fake.connecting() {
            let (well, capacity) = {
                let mut model = self.model();
                if target.port() % 7 == 0 || !model.chance(120) {
                    continue;
                }
                (model.chance(200), model.rng.usize(8..2000))
            };
            self.fake.end_connect(handle, well, capacity);
        }
    }

    /// A session that connects has a connection by now, perhaps.
    pub(super) fn find_connection(&self, index: usize) {
        let targets = self.model().parties[index].targets.clone();
        if targets.is_empty() {
            return;
        }
        let connection = targets.iter().filter_map(|&target| self.fake.connection_to(target)).max();
        let mut model = self.model();
        let party = &mut model.parties[index];
        if party.connection != connection {
            // Another peer, and nothing is known of it.
            party.connection = connection;
            (party.heard, party.gone) = (None, None);
            (party.said, party.peer_finished, party.peer_reset) = (0, false, false);
        }
    }

    /// Those who can still read do so, until nothing comes any more.
    pub(super) fn all_peers_read_on(&self) {
        let count = self.model().parties.len();
        for index in 0..count {
            self.find_connection(index);
            let (connection, reset) = {
                let model = self.model();
                let party = &model.parties[index];
                (party.connection, party.peer_reset || party.heard == Some(Heard::Reset))
            };
            let Some(connection) = connection.filter(|_| !reset) else { continue };
            let view = self.fake.view(connection);
            if !view.broken {
                self.fake.peer_reads(connection, view.sent - view.read);
            }
        }
        self.observe();
    }

    /// Nothing has to pass for a moment.
    pub(super) fn a_moment(&self) {
        let time = self.model().rng.u64(..30);
        self.go_on(ms(time));
    }
}
