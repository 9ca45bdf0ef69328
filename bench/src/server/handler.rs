//! What makes a handler slow: a message that begins with one of these letters. The peers know the same ones.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The handler sleeps.
pub const BLOCK: u8 = b'B';
/// The same, and the handler announces it.
pub const ANNOUNCE: u8 = b'A';
/// The handler takes the one lock that there is, and sleeps with it; whoever else wants it waits.
pub const LOCK: u8 = b'L';
/// The handler computes.
pub const COMPUTE: u8 = b'S';
/// For how long.
const SLOW_FOR: Duration = Duration::from_millis(50);

static THE_LOCK: Mutex<()> = Mutex::new(());

pub fn handle(message: &[u8]) {
    match message.first() {
        Some(&BLOCK) => std::thread::sleep(SLOW_FOR),
        Some(&ANNOUNCE) => wharf::blocking(|| std::thread::sleep(SLOW_FOR)),
        Some(&LOCK) => {
            let _held = THE_LOCK.lock().unwrap_or_else(PoisonError::into_inner);
            std::thread::sleep(SLOW_FOR);
        }
        Some(&COMPUTE) => compute(SLOW_FOR),
        _ => {}
    }
}

/// Keeps a processor busy.
pub fn compute(time: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        std::hint::spin_loop();
    }
}
