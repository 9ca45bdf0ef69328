//! The program's logger is code of the program: it may ask sessions and clients how they are, whatever it is told.

mod common;

use common::theatre::{Theatre, client, next, service};
use common::{dead_address, eventually};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;
use wharf_session::{Link, Reconnect, Reconnecting, Service, SlowConsumer};

/// Asks everybody about each record.
struct Curious;

static LINKS: Mutex<Vec<Link>> = Mutex::new(Vec::new());
static CLIENT: OnceLock<Reconnecting> = OnceLock::new();
static RECORDS: AtomicUsize = AtomicUsize::new(0);

impl log::Log for Curious {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let links = LINKS.lock().unwrap().clone();
        links.iter().for_each(|link| _ = link.stats());
        let _ = CLIENT.get().map(Reconnecting::state);
        if record.args().to_string().contains("session") {
            RECORDS.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn flush(&self) {}
}

#[test]
fn a_logger_may_ask_the_session_and_the_client_that_it_is_told_about() {
    log::set_logger(&Curious).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let theatre = Theatre::new();
    let service = service(Service::options().memory_limit(1 << 20).outbox(16 << 20, SlowConsumer::Disconnect));
    let (casting, (tell, links)) = (theatre.casting(), channel());
    let address = service
        .listen("127.0.0.1:0", move |_| {
            let tell = tell.clone();
            casting.actor().opened(move |link| tell.send(link.clone()).unwrap())
        })
        .unwrap();
    let casting = theatre.casting();
    let hasty = Reconnect::new().initial_delay(Duration::from_millis(5)).attempts(3);
    let again = service.reconnect(dead_address(), hasty, move || casting.actor()).unwrap();
    CLIENT.set(again.clone()).unwrap();
    assert_eq!(again.wait().to_string().split(',').next(), Some("given up after 3 attempts"));
    let ended_by_peer = client(address);
    LINKS.lock().unwrap().push(next(&links));
    drop(ended_by_peer);
    let _deaf = client(address);
    let link = next(&links);
    LINKS.lock().unwrap().push(link.clone());
    // Until it is ended for the memory that it holds.
    while link.send(vec![0; 64 * 1024]).is_ok() {}
    eventually("all are over", || theatre.closed() == 5);
    assert!(RECORDS.load(Ordering::SeqCst) >= 6, "each session's end, and why one was ended");
    LINKS.lock().unwrap().clear();
}
