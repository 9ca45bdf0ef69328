//! What an idle session costs in heap memory, counted by the allocator.

#![cfg(target_os = "linux")]

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use wharf::Buffer;
use wharf_session::{Link, Service, Session};
use wharf_testkit::heap::{Counting, live};
use wharf_testkit::limits::descriptors_for;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A test file with one test: nothing else allocates meanwhile.
#[test]
fn an_idle_session_holds_little_more_than_a_connection() {
    let count = descriptors_for(10_000);
    // One connection, under ten thousand descriptors: for the port they are as many.
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let each = idle_sessions(&ours, count);
    println!("{each} bytes for each of {count} idle sessions");
    // No goal, but it shall not grow unseen.
    assert!((300..1500).contains(&each), "{each} bytes for each of {count} idle sessions");
}

struct Quiet(Arc<AtomicUsize>);

impl Session for Quiet {
    fn opened(&mut self, _link: &Link) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn received(&mut self, _link: &Link, _bytes: Buffer) {}
}

/// What each of so many sessions holds that have opened and wait.
fn idle_sessions(socket: &UnixStream, count: usize) -> usize {
    let service = Service::options().start().unwrap();
    let opened = Arc::new(AtomicUsize::new(0));
    let before = live();
    for _ in 0..count {
        service.adopt_local(socket.try_clone().unwrap(), Quiet(opened.clone())).unwrap();
    }
    let until = Instant::now() + Duration::from_secs(60);
    while opened.load(Ordering::Relaxed) < count || !idle(&service) {
        assert!(Instant::now() < until, "the sessions do not open");
        std::thread::sleep(Duration::from_millis(10));
    }
    (live() - before) / count
}

fn idle(service: &Service) -> bool {
    let port = service.stats().port;
    port.queued == 0 && port.active == 0
}
