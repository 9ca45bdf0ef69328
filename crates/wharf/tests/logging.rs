//! The program's logger is code of the program: it may use files of a port, whatever it is told.

mod common;

use common::DEADLINE;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use wharf::CompletionPort;
use wharf::fs::File;

/// Uses the file at each record.
struct Curious;

static FILE: Mutex<Option<File<(), ()>>> = Mutex::new(None);

impl log::Log for Curious {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, _: &log::Record<'_>) {
        let file = FILE.lock().unwrap().clone();
        let _ = file.map(|file| file.sync(()));
    }

    fn flush(&self) {}
}

#[test]
fn a_logger_may_use_a_file_of_the_port_whose_file_engine_it_is_told_about() {
    log::set_logger(&Curious).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let port = CompletionPort::<(), ()>::new().unwrap();
    let path = std::env::temp_dir().join(format!("wharf-logging-{}", std::process::id()));
    let file = port.associate(std::fs::File::create(&path).unwrap(), ()).unwrap();
    std::fs::remove_file(&path).unwrap();
    *FILE.lock().unwrap() = Some(file.clone());
    let (tell, has_come_back) = channel();
    std::thread::spawn(move || {
        // The first operation that waits starts the file engine.
        file.sync(()).unwrap();
        tell.send(()).unwrap();
    });
    has_come_back.recv_timeout(DEADLINE).expect("the call waits for the logger, and the logger for the call");
    // Its own packet, and that of the logger's. Windows' kernel is the engine, and nobody is told of it.
    let packets = if cfg!(windows) { 1 } else { 2 };
    (0..packets).for_each(|_| drop(port.get_timeout(DEADLINE).unwrap()));
    *FILE.lock().unwrap() = None;
}
