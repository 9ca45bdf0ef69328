//! Rows that hold on some engines, or with one policy of waking, and differ with the others.

use super::{Apart, concurrency, driven, port, receive};
use crate::kit::Bench;
use crate::setting::Engine;
use crate::setting::Where::{On, Readiness, With};
use wharf::Wake::Adaptive;

const fn unix(row: &'static str, here: &'static str, shown: fn(&Bench)) -> Apart {
    Apart { row, at: Readiness, here, shown }
}

const fn adaptive(row: &'static str, here: &'static str, shown: fn(&Bench)) -> Apart {
    Apart { row, at: With(Adaptive), here, shown }
}

/// What the default policy does where threads wait, slots are free, and some threads are active.
const LATER: &str =
    "beside active threads at the latest after one tick, because a wake-up costs as much as five echoed messages";

const POSTS_ONLY: &str = "readable when something was posted, or a device was closed; not for what ends by itself";

pub const APART: &[Apart] = &[
    unix(
        "P-13",
        "a socket is moved into the port, so a program cannot name it twice; a duplicate made before is not recognised, and a descriptor twice is refused on one port only",
        port::duplicate_elsewhere,
    ),
    unix(
        "P-15",
        "a duplicate made before (`try_clone`) is another source, and may go to another port; both then take bytes of the one stream",
        port::duplicate_elsewhere,
    ),
    #[cfg(not(target_os = "linux"))]
    Apart { row: "P-40", at: On(Engine::Poll), here: POSTS_ONLY, shown: port::hears_posts_only },
    Apart { row: "P-40", at: On(Engine::Fake), here: POSTS_ONLY, shown: port::hears_posts_only },
    unix("R-04", "an operation of the raw layer may peek, too", receive::peeks),
    unix(
        "D-17",
        "when a thread finds that it can go on: several sockets that became ready between two looks come in the order of the look, behind posts that were queued before it (D-15, D-33)",
        driven::order_of_looking,
    ),
    adaptive(
        "C-05",
        "so when nobody is active; beside active threads the others are released one tick later, in any order",
        concurrency::one_warm,
    ),
    unix(
        "C-05",
        "so for posts; what comes by itself goes to the thread that waits for it inside the system, so that posts and I/O by turns keep two threads warm",
        concurrency::leader_is_warm,
    ),
    unix(
        "D-42",
        "`Batch::len` is the most that there can be: a socket that seemed ready may bring nothing",
        driven::batch_has_at_most,
    ),
    adaptive("C-04", LATER, concurrency::hand_over_later),
    adaptive("C-18", LATER, concurrency::stranded_for_a_tick),
    adaptive("D-33", LATER, concurrency::posts_wake_later),
    unix(
        "S-01",
        "half-sent data, timers and accepting go on while a thread is inside `get`, or supervises (`start`, `supervise`); otherwise, while all threads of the program's own are outside, they wait",
        driven::send_stands_still,
    ),
    unix(
        "K-20",
        "as S-01: what goes out goes on while a thread is inside `get` or supervises",
        driven::shut_send_stands_still,
    ),
];
