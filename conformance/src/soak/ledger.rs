//! Counts operations: each that the port accepted has exactly one packet.
//!
//! The context of an operation holds a ticket. When the packet comes the ticket is handed in; a ticket that is dropped
//! before is a packet that was lost, one whose number is no longer outstanding a packet that came twice.

use std::sync::{Arc, Mutex};

/// What an operation is, for the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Accept,
    Connect,
    Receive,
    Send,
    SendFile,
    Disconnect,
    Datagram,
    File,
    Timer,
    Post,
}

impl Kind {
    pub const ALL: [(Kind, &str); 10] = [
        (Kind::Accept, "accepts"),
        (Kind::Connect, "connects"),
        (Kind::Receive, "receives"),
        (Kind::Send, "sends"),
        (Kind::SendFile, "send-files"),
        (Kind::Disconnect, "disconnects"),
        (Kind::Datagram, "datagrams"),
        (Kind::File, "file operations"),
        (Kind::Timer, "timers"),
        (Kind::Post, "posts"),
    ];
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Accepted by the port.
    pub issued: u64,
    /// Packets that came.
    pub packets: u64,
    /// Of these, ended by a cancel or a close.
    pub cancelled: u64,
}

#[derive(Default)]
struct Books {
    counts: [Counts; Kind::ALL.len()],
    /// For each place: which ticket has it, or had it last, and whether it is out.
    places: Vec<(u64, bool)>,
    free: Vec<usize>,
    last: u64,
    faults: Vec<String>,
}

/// Faults that are kept; one is enough to fail.
const FAULTS_MAX: usize = 20;

#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Books>>);

impl Ledger {
    fn books(&self) -> std::sync::MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn ticket(&self, kind: Kind) -> Ticket {
        let mut books = self.books();
        books.counts[kind as usize].issued += 1;
        books.last += 1;
        let number = books.last;
        let place = books.free.pop().unwrap_or_else(|| {
            books.places.push((0, false));
            books.places.len() - 1
        });
        books.places[place] = (number, true);
        Ticket { ledger: self.clone(), kind, place, number, handed_in: false }
    }

    /// Something is not as it has to be.
    pub fn fault(&self, what: String) {
        let mut books = self.books();
        if books.faults.len() < FAULTS_MAX {
            books.faults.push(what);
        }
    }

    pub fn faults(&self) -> Vec<String> {
        self.books().faults.clone()
    }

    pub fn counts(&self) -> [Counts; Kind::ALL.len()] {
        self.books().counts
    }

    /// Tickets that are out.
    pub fn outstanding(&self) -> usize {
        let books = self.books();
        books.places.len() - books.free.len()
    }
}

pub struct Ticket {
    ledger: Ledger,
    pub kind: Kind,
    place: usize,
    number: u64,
    handed_in: bool,
}

impl Ticket {
    /// Its packet says that it was cancelled.
    pub fn cancelled(&self) {
        self.ledger.books().counts[self.kind as usize].cancelled += 1;
    }

    /// Its packet has come.
    pub fn arrive(mut self) {
        let ledger = self.ledger.clone();
        ledger.books().counts[self.kind as usize].packets += 1;
        self.hand_in();
    }

    /// The port has not accepted the operation: no packet will come.
    pub fn withdraw(mut self) {
        let ledger = self.ledger.clone();
        ledger.books().counts[self.kind as usize].issued -= 1;
        self.hand_in();
    }

    fn hand_in(&mut self) {
        self.handed_in = true;
        let ledger = self.ledger.clone();
        let mut books = ledger.books();
        if books.places[self.place] == (self.number, true) {
            books.places[self.place].1 = false;
            books.free.push(self.place);
            return;
        }
        drop(books);
        ledger.fault(format!("{:?}: a packet came twice", self.kind));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.handed_in {
            self.ledger.fault(format!("{:?}: the context was freed, and no packet had come", self.kind));
            self.hand_in();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_that_arrives_once_is_no_fault_and_every_other_end_is_one() {
        let ledger = Ledger::default();
        ledger.ticket(Kind::Send).arrive();
        ledger.ticket(Kind::Send).withdraw();
        assert_eq!(ledger.counts()[Kind::Send as usize], Counts { issued: 1, packets: 1, cancelled: 0 });
        assert!(ledger.faults().is_empty() && ledger.outstanding() == 0);
        let again = Ticket { ledger: ledger.clone(), kind: Kind::Post, place: 0, number: 1, handed_in: false };
        again.arrive();
        assert_eq!(ledger.faults().len(), 1, "twice");
        let lost = ledger.ticket(Kind::Post);
        assert_eq!(ledger.outstanding(), 1);
        drop(lost);
        assert_eq!(ledger.faults().len(), 2, "never");
    }
}
