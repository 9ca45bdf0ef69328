#![cfg(test)]
//! Single schedules, each of which once went wrong.

use super::peers::Habits;
use super::{Call, Closed, Duration, Fake, Heard, Limits, Rc, Rng, Schedule, SlowConsumer, SocketAddr, ms, time};
use crate::SendErrorReason;
use std::net::Ipv4Addr;

const ENOTCONN: i32 = 107;

/// Without faults, and with nobody who acts by himself.
fn quiet(limits: Limits) -> Rc<Schedule> {
    let schedule = Schedule::with(Fake::quiet(), limits, 0, Rng::with_seed(1));
    schedule.model().calm = true;
    schedule
}

fn limits() -> Limits {
    Limits {
        linger: ms(1000),
        idle: None,
        handshake: None,
        connect: ms(500),
        policy: SlowConsumer::Disconnect,
        memory: None,
        rated: false,
        outbox: 10_000,
    }
}

impl Schedule {
    /// A session with a silent peer, which leaves so much unread.
    fn silent(&self, capacity: usize, targets: Vec<SocketAddr>) -> usize {
        let index = self.new_party(targets);
        {
            let mut model = self.model();
            let party = &mut model.parties[index];
            (party.habits, party.is_framed) = (Habits::SILENT, false);
        }
        if self.model().parties[index].targets.is_empty() {
            self.adopt_for(index, capacity, |_| {});
        } else {
            self.connect_for(index);
        }
        self.work();
        index
    }

    fn say(&self, index: usize, length: usize) {
        let (number, message) = self.model().message(length);
        self.link(index).send(message).unwrap();
        self.model().parties[index].accepted.push(number);
    }

    fn close(&self, index: usize) {
        let now = self.time();
        self.model().parties[index].closing = Some(now);
        self.link(index).close();
    }

    fn link(&self, index: usize) -> super::Link {
        self.model().parties[index].link.clone().unwrap()
    }

    fn over(self: Rc<Self>) {
        self.shut_down(Duration::ZERO);
        self.all_peers_read_on();
        self.check_all();
        time::enter(None);
        wharf::fake::stand_still(None);
    }
}

#[test]
fn the_end_of_sending_is_nothing_that_an_idle_peer_has_taken() {
    let schedule = quiet(Limits { idle: Some(ms(400)), ..limits() });
    let index = schedule.silent(100, Vec::new());
    schedule.say(index, 80);
    schedule.pass_time(ms(300));
    schedule.link(index).finish();
    // It looks eight times in that time, and is a quarter late at most.
    schedule.pass_time(ms(300));
    assert!(schedule.link(index).0.is_to_end(), "it was silent for 600 ms, and 400 are allowed");
    schedule.over();
}

#[test]
fn an_end_that_the_system_has_not_taken_is_no_byte_that_arrived() {
    let schedule = quiet(limits());
    let index = schedule.silent(100, Vec::new());
    schedule.say(index, 80);
    // The connection breaks just before the end is given to the system.
    schedule.fake.fail_next(Call::Shutdown, ENOTCONN);
    schedule.close(index);
    schedule.model().parties[index].peer_reset = true;
    let connection = schedule.model().parties[index].connection.unwrap();
    schedule.fake.peer_resets(connection, true);
    schedule.work();
    assert_eq!(schedule.link(index).stats().lost_bytes, 80);
    schedule.over();
}

#[test]
fn who_reads_one_long_message_is_no_slow_consumer() {
    let schedule = quiet(Limits { outbox: 1000, ..limits() });
    let index = schedule.silent(100, Vec::new());
    let connection = schedule.model().parties[index].connection.unwrap();
    schedule.say(index, 1000);
    for _ in 0..5 {
        schedule.fake.peer_reads(connection, 100);
        schedule.work();
    }
    // The system has 600 bytes of it, and the send is not complete.
    schedule.say(index, 600);
    let (_, message) = schedule.model().message(100);
    assert_eq!(schedule.link(index).send(message).unwrap_err().reason, SendErrorReason::SlowConsumer);
    schedule.over();
}

#[test]
fn a_connection_that_is_made_too_late_is_reset() {
    let schedule = quiet(limits());
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, 7));
    let index = schedule.silent(100, vec![target]);
    schedule.say(index, 80);
    schedule.fake.advance(ms(900));
    let (handle, _) = schedule.fake.connecting()[0];
    schedule.fake.end_connect(handle, true, 100).unwrap();
    // The sweep comes before the engine has told of it.
    let inner = schedule.running().unwrap();
    inner.look_at_lingering(schedule.time());
    schedule.work();
    schedule.find_connection(index);
    assert_eq!(schedule.model().parties[index].heard, Some(Heard::Reset));
    assert!(matches!(schedule.model().parties[index].closed, Some(Closed::Failed(_))));
    drop(inner);
    schedule.over();
}

#[test]
fn the_limit_of_a_connect_is_none_of_the_end_that_comes_behind_it() {
    let schedule = quiet(limits());
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, 7));
    let index = schedule.silent(100, vec![target]);
    schedule.say(index, 80);
    schedule.pass_time(ms(300));
    schedule.close(index);
    schedule.pass_time(ms(100));
    let (handle, _) = schedule.fake.connecting()[0];
    let connection = schedule.fake.end_connect(handle, true, 100).unwrap();
    // 500 ms were for the connect; 1 s is for the end.
    schedule.pass_time(ms(500));
    schedule.fake.peer_reads(connection, 80);
    schedule.pass_time(ms(100));
    assert_eq!(schedule.model().parties[index].heard, Some(Heard::End));
    schedule.over();
}

#[test]
fn a_session_that_is_being_closed_still_tries_its_other_address() {
    let schedule = quiet(limits());
    let targets = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 7)), SocketAddr::from((Ipv4Addr::LOCALHOST, 14))];
    let index = schedule.silent(100, targets);
    schedule.say(index, 80);
    schedule.pass_time(ms(300));
    schedule.close(index);
    // The first does not answer within 500 ms.
    schedule.pass_time(ms(500));
    let (handle, target) = schedule.fake.connecting()[0];
    assert_eq!(target.port(), 14);
    let connection = schedule.fake.end_connect(handle, true, 100).unwrap();
    schedule.work();
    schedule.fake.peer_reads(connection, 80);
    schedule.pass_time(ms(250));
    assert_eq!(schedule.model().parties[index].heard, Some(Heard::End));
    schedule.over();
}

#[test]
fn a_session_that_is_ended_before_it_has_its_connection_resets_it() {
    let schedule = quiet(limits());
    let index = schedule.new_party(Vec::new());
    schedule.model().parties[index].is_framed = false;
    schedule.model().parties[index].habits = Habits::SILENT;
    schedule.adopt_for(index, 100, |link| {
        schedule.say(index, 80);
        schedule.model().parties[index].aborted = true;
        link.abort();
    });
    schedule.work();
    assert_eq!(schedule.model().parties[index].heard, Some(Heard::Reset));
    assert_eq!(schedule.link(index).stats().lost_bytes, 80);
    schedule.over();
}
