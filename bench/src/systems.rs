//! The systems that scenarios compare, by name.

use crate::rows::AGAIN;
use crate::system::System;

/// wharf with one processor: a worker, and one that stands by.
pub const POOL: &str = "wharf 2 workers, limit 1";
/// wharf with two processors.
pub const POOL_OF_TWO: &str = "wharf 3 workers, limit 2";

/// wharf's own, with its noise: a pool, the same once more, one thread, and sessions. `kind` is one of `echo` and
/// `spin`.
pub fn wharf_one(options: &str) -> Vec<System> {
    let (kind, rest) = split(options);
    vec![
        System::wharf(POOL, &format!("{kind} --workers 2 --limit 1 {rest}")),
        System::wharf(AGAIN, &format!("{kind} --workers 2 --limit 1 {rest}")),
        System::wharf("wharf sessions 2, limit 1", &format!("{kind}-session --workers 2 --limit 1 {rest}")),
    ]
}

/// The same, for two processors.
pub fn wharf_two(options: &str) -> Vec<System> {
    let (kind, rest) = split(options);
    vec![
        System::wharf(POOL_OF_TWO, &format!("{kind} --workers 3 --limit 2 {rest}")),
        System::wharf(AGAIN, &format!("{kind} --workers 3 --limit 2 {rest}")),
        System::wharf("wharf sessions 3, limit 2", &format!("{kind}-session --workers 3 --limit 2 {rest}")),
    ]
}

fn split(options: &str) -> (&str, &str) {
    options.split_once(' ').unwrap_or((options, ""))
}

/// The peers of these names, with a number of threads.
pub fn peers(names: &[&'static str], workers: usize, options: &str) -> Vec<System> {
    let name = |&program: &&'static str| {
        let shown = match program {
            "tokio" if workers == 1 => "tokio current_thread".to_owned(),
            "tokio" => format!("tokio multi_thread({workers})"),
            "threads" => "a thread per connection".to_owned(),
            "uring" => with_workers("raw io_uring", workers),
            "epoll" | "poll" | "select" => with_workers(&format!("raw {program}"), workers),
            _ => with_workers(program, workers),
        };
        System::peer(&shown, program, &format!("{options} --workers {workers}"))
    };
    names.iter().map(name).collect()
}

/// Whether this is what an author would pick instead of a port.
pub fn is_runtime(name: &str) -> bool {
    ["tokio", "compio", "monoio", "glommio", "asio"].iter().any(|runtime| name.starts_with(runtime))
}

/// Whether this is a loop around system calls, written for the occasion.
pub fn is_raw_loop(name: &str) -> bool {
    name == "mio" || name.starts_with("raw ")
}

fn with_workers(name: &str, workers: usize) -> String {
    if workers == 1 { name.to_owned() } else { format!("{name}, {workers} threads") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_runtime_or_a_loop_and_wharf_is_neither() {
        let both = |name: &str| (is_runtime(name), is_raw_loop(name));
        for system in peers(&["tokio", "compio", "monoio", "glommio", "asio"], 2, "echo") {
            assert_eq!(both(&system.name), (true, false), "{}", system.name);
        }
        for system in peers(&["mio", "epoll", "uring", "poll", "select"], 1, "echo") {
            assert_eq!(both(&system.name), (false, true), "{}", system.name);
        }
        for system in wharf_one("echo").into_iter().chain(peers(&["threads"], 1, "echo")) {
            assert_eq!(both(&system.name), (false, false), "{}", system.name);
        }
    }

    #[test]
    fn no_two_systems_of_a_comparison_have_one_name() {
        let all =
            ["tokio", "compio", "monoio", "glommio", "mio", "epoll", "uring", "poll", "select", "threads", "asio"];
        for (own, workers) in [(wharf_one("echo"), 1), (wharf_two("spin --spin-us 5"), 2)] {
            let mut names: Vec<String> =
                own.into_iter().chain(peers(&all, workers, "echo")).map(|system| system.name).collect();
            names.sort();
            let count = names.len();
            names.dedup();
            assert_eq!(names.len(), count);
        }
    }
}
