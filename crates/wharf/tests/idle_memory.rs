//! What an idle connection costs in heap memory, counted by the allocator.

#![cfg(target_os = "linux")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use wharf::session::{Link, Service, Session};
use wharf::{Buffer, CompletionPort};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code)]
// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised us.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised us.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A test file with one test: nothing else allocates meanwhile.
#[test]
fn an_idle_connection_holds_fewer_than_three_hundred_bytes_and_a_session_some_more() {
    const COUNT: usize = 10_000;
    let wanted = COUNT as u64 + 100;
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let allowed = limits.maximum.unwrap_or(u64::MAX).min(wanted);
    rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit { current: Some(allowed), maximum: limits.maximum },
    )
    .unwrap();
    let count = COUNT.min(usize::try_from(allowed.saturating_sub(100)).unwrap());
    if count < COUNT {
        assert!(std::env::var_os("CI").is_none(), "the limit of open files is too low for {COUNT} connections");
        eprintln!("SKIPPED in part: with {count} connections, as the limit of open files allows no more");
    }

    let port = CompletionPort::<u64, u64>::new().unwrap();
    // One connection, under ten thousand descriptors: for the port they are as many.
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut streams = Vec::with_capacity(count);
    let before = LIVE.load(Ordering::Relaxed);
    for key in 0..count as u64 {
        let stream = port.associate(ours.try_clone().unwrap(), key).unwrap();
        stream.recv_pooled(key).unwrap();
        streams.push(stream);
    }
    let each = (LIVE.load(Ordering::Relaxed) - before) / count;
    println!("{each} bytes for each of {count} idle connections at port level");
    assert!(each < 300, "{each} bytes for each of {count} idle connections");
    assert!(each > 50, "it was not counted");
    drop(streams);
    drop(port);

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
    let service = Service::builder().start().unwrap();
    let opened = Arc::new(AtomicUsize::new(0));
    let before = LIVE.load(Ordering::Relaxed);
    for _ in 0..count {
        service.adopt_local(socket.try_clone().unwrap(), Quiet(opened.clone())).unwrap();
    }
    let until = Instant::now() + Duration::from_secs(60);
    while opened.load(Ordering::Relaxed) < count || !idle(&service) {
        assert!(Instant::now() < until, "the sessions do not open");
        std::thread::sleep(Duration::from_millis(10));
    }
    (LIVE.load(Ordering::Relaxed) - before) / count
}

fn idle(service: &Service) -> bool {
    let port = service.stats().port;
    port.queued == 0 && port.active == 0
}
