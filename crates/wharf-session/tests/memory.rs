//! The memory of all sessions together: what is shared counts once, and at the limit the policy is applied to as many
//! of those who hold most as it takes.

mod common;

use common::eventually;
use common::theatre::{Theatre, next, service};
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use wharf_session::{Framed, FramedLink, FramedSession, Group, Lines, Link, Service, ServiceOptions, SlowConsumer};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// A service with peers that never read, all of them members of a room; what the system takes of what they are sent is
/// taken.
struct Deaf {
    service: Service,
    room: Group,
    links: Vec<Link>,
    _peers: Vec<TcpStream>,
}

fn deaf(theatre: &Theatre, builder: ServiceOptions, count: usize) -> Deaf {
    let service = service(builder);
    let (room, casting, (tell, told)) = (Group::new(), theatre.casting(), channel());
    let address = service
        .listen("127.0.0.1:0", move |_| {
            let tell = tell.clone();
            casting.actor().opened(move |link| tell.send(link.clone()).unwrap())
        })
        .unwrap();
    let mut peers = Vec::new();
    let mut links: Vec<Link> = Vec::new();
    for _ in 0..count {
        let peer = TcpStream::connect(address).unwrap();
        let link = next(&told);
        // Until the system takes no more.
        while link.stats().kept_bytes == 0 {
            link.send(vec![0; 64 * KIB]).unwrap();
        }
        room.join(&link);
        links.push(link);
        peers.push(peer);
    }
    Deaf { service, room, links, _peers: peers }
}

#[test]
fn a_broadcast_counts_once_however_many_have_not_read_it() {
    const MEMBERS: usize = 10;
    let theatre = Theatre::new();
    let builder = Service::options().outbox(4 * MIB, SlowConsumer::Disconnect).memory_limit(8 * MIB);
    let all_deaf = deaf(&theatre, builder, MEMBERS);
    let Deaf { service, room, links, .. } = &all_deaf;
    let before = service.stats().memory.used_bytes;
    for _ in 0..20 {
        assert_eq!(room.broadcast(&[7; 50 * KIB]), MEMBERS);
    }
    // Each of them keeps all of it, and it is there once.
    assert!(links.iter().all(|link| link.stats().kept_bytes >= 1000 * KIB));
    assert_eq!(service.stats().memory.used_bytes - before, 1000 * KIB);
    assert_eq!(service.stats().memory.ended, 0);
    // The last that lets go of it frees it.
    let (last, others) = links.split_last().unwrap();
    others.iter().for_each(Link::abort);
    eventually("the others are gone", || service.stats().sessions == 1);
    let used = service.stats().memory.used_bytes;
    assert!((1000 * KIB..1100 * KIB).contains(&used), "{used}");
    last.abort();
    eventually("all is free", || service.stats().memory.used_bytes == 0);
}

/// Says each of its lines to everybody.
struct Chat(Group);

impl FramedSession for Chat {
    type Codec = Lines;
    fn frame(&mut self, _: &FramedLink<Lines>, line: &[u8]) {
        self.0.broadcast(&[line, b"\n"].concat());
    }
}

#[test]
fn what_is_coalesced_for_many_counts_once_too() {
    use std::io::Write;
    const MEMBERS: usize = 10;
    const LINES: usize = 2000;
    let theatre = Theatre::new();
    let builder = Service::options().outbox(4 * MIB, SlowConsumer::Disconnect).memory_limit(8 * MIB);
    let all_deaf = deaf(&theatre, builder, MEMBERS);
    let Deaf { service, room, links, .. } = &all_deaf;
    let before = service.stats().memory.used_bytes;
    let said = room.clone();
    let chat = service.listen("127.0.0.1:0", move |_| Framed::new(Lines::new(200), Chat(said.clone()))).unwrap();
    let mut speaker = TcpStream::connect(chat).unwrap();
    speaker.write_all(&[&[b'x'; 99][..], b"\n"].concat().repeat(LINES)).unwrap();
    let all = 100 * LINES;
    eventually("all was said", || links.iter().all(|link| link.stats().kept_bytes >= all));
    let used = service.stats().memory.used_bytes - before;
    assert!((all..2 * all).contains(&used), "{used} bytes for {all}");
    links.iter().for_each(Link::abort);
    drop(speaker);
    eventually("all is free", || service.stats().memory.used_bytes == 0);
}

#[test]
fn at_the_limit_the_oldest_of_others_are_dropped_where_the_largest_has_none() {
    const LIMIT: usize = 16 * MIB;
    let theatre = Theatre::new();
    let builder = Service::options().outbox(32 * MIB, SlowConsumer::DropOldest).memory_limit(LIMIT);
    let all_deaf = deaf(&theatre, builder, 2);
    let Deaf { service, links, .. } = &all_deaf;
    // The largest has one message, which is on its way.
    let (casting, (tell, told)) = (theatre.casting(), channel());
    let address = service.listen("127.0.0.1:0", move |_| {
        let tell = tell.clone();
        casting.actor().opened(move |link| tell.send(link.clone()).unwrap())
    });
    let _peer = TcpStream::connect(address.unwrap()).unwrap();
    let largest = next(&told);
    largest.send(vec![1; 10 * MIB]).unwrap();
    assert_eq!(largest.stats().kept_bytes, 10 * MIB, "the system has taken all of it");
    let (small, other) = (&links[0], &links[1]);
    while LIMIT - service.stats().memory.used_bytes >= 64 * KIB {
        small.send(vec![2; 64 * KIB]).unwrap();
    }
    let queued = other.stats().kept_bytes;
    for _ in 0..10 {
        other.send(vec![3; 64 * KIB]).unwrap();
    }
    assert_eq!(other.stats().kept_bytes, queued + 640 * KIB, "{:?}", other.stats());
    assert_eq!((largest.stats().dropped, other.stats().dropped), (0, 0));
    assert!(small.stats().dropped >= 9);
    assert!(service.stats().memory.used_bytes <= LIMIT);
}

#[test]
fn who_waits_for_memory_does_not_wait_for_one_deaf_peer_after_the_other() {
    const MEMBERS: usize = 12;
    const LIMIT: usize = 6 * MIB;
    let theatre = Theatre::new();
    let builder = Service::options().outbox(8 * MIB, SlowConsumer::Wait).memory_limit(LIMIT);
    let all_deaf = deaf(&theatre, builder, MEMBERS);
    let Deaf { service, links, .. } = &all_deaf;
    // They hold all of it, each its part.
    let part = (LIMIT - service.stats().memory.used_bytes) / MEMBERS / KIB * KIB;
    links.iter().for_each(|link| link.send(vec![1; part]).unwrap());
    let (casting, (tell, told)) = (theatre.casting(), channel());
    let other = service.listen("127.0.0.1:0", move |_| {
        let tell = tell.clone();
        casting.actor().opened(move |link| tell.send(link.clone()).unwrap())
    });
    let _reader = TcpStream::connect(other.unwrap()).unwrap();
    let link = next(&told);
    // It needs what most of them were sent. How many that are depends on what their systems still take of it.
    let begun = Instant::now();
    link.send(vec![2; 9 * part]).unwrap();
    let took = begun.elapsed();
    let ended = service.stats().memory.ended;
    assert!((2..MEMBERS as u64).contains(&ended), "{ended} were ended");
    // One after the other they would take a second each.
    assert!(took < Duration::from_secs(ended), "{took:?} for {ended}");
}
