//! Linux: its engines, and its limits. Where a sync did not run on io_uring, a second port asks for nothing else, so
//! that the kernel itself says why not.

use crate::doctor::finding::{Finding, processors};
use crate::doctor::sync::{Trouble, sync};
use crate::system::scarce;
use rustix::process::{PidfdFlags, Resource, getpid, getrlimit, pidfd_open};
use std::fs;
use std::io;
use wharf::{CompletionPort, FileEngine};

/// Connections that a server should be able to hold: each is one descriptor.
const DESCRIPTORS: u64 = 10_000;
/// The backlog that the library asks for (`net/tcp.rs`); the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: u64 = 4096;
/// Of the files that the system can have open, more than this part in a hundred is too close to the limit.
const FILES_PERCENT_MAX: u64 = 90;

const EPERM: i32 = 1;
const ENOMEM: i32 = 12;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const EINVAL: i32 = 22;
const ENOSYS: i32 = 38;

/// All that is looked at, in order.
pub fn findings() -> Result<Vec<Finding>, String> {
    let groups = [vec![kernel(), processors()], engines()?, vec![pidfd()], limits()];
    Ok(groups.into_iter().flatten().collect())
}

fn kernel() -> Finding {
    let name = rustix::system::uname();
    let part = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let value = format!("{} {} {}", part(name.sysname()), part(name.release()), part(name.machine()));
    Finding::fine("kernel", value, "")
}

// --- Engines ---

/// What runs sockets and files, and why.
fn engines() -> Result<Vec<Finding>, String> {
    let port = match CompletionPort::<(), ()>::new() {
        Ok(port) => port,
        // The limits are told below, and they are why it was asked.
        Err(error) if scarce(&error).is_some() => {
            let (why, remedy) = explain(&error);
            return Ok(vec![Finding::warning("sockets", "none", format!("the port cannot be made: {why}"), remedy)]);
        }
        Err(error) => return Err(format!("the port cannot be made: {error}")),
    };
    let synced = sync(&port);
    let stats = port.stats();
    let asked = std::env::var("WHARF_ENGINE").unwrap_or_default();
    let sockets = Finding::fine("sockets", stats.engine, "");
    let files = match (synced, stats.files) {
        (Err(Trouble::File(sentence)), _) => return Err(sentence),
        (Ok(()), Some("io_uring")) => Finding::fine("files", "io_uring", why_ring()),
        (Ok(()), engine) => {
            let engine = engine.unwrap_or("threads");
            match (ring_refused(), asked.as_str()) {
                (Err(Trouble::File(sentence)), _) => return Err(sentence),
                (Ok(()), _) => Finding::fine(
                    "files",
                    engine,
                    format!("WHARF_ENGINE={asked} asks for it; the kernel would give an io_uring"),
                ),
                (Err(Trouble::Engine(error)), "threads") => Finding::fine(
                    "files",
                    engine,
                    format!(
                        "WHARF_ENGINE=threads asks for it; the kernel gives no io_uring anyway: {}",
                        explain(&error).0
                    ),
                ),
                (Err(Trouble::Engine(error)), _) => {
                    let (why, remedy) = explain(&error);
                    Finding::warning("files", engine, format!("the kernel gives no io_uring: {why}"), remedy)
                }
            }
        }
        (Err(Trouble::Engine(error)), _) if scarce(&error).is_some() => {
            let (why, remedy) = explain(&error);
            Finding::warning("files", "none", format!("no file can be opened: {why}"), remedy)
        }
        (Err(Trouble::Engine(error)), _) => Finding::warning(
            "files",
            "none",
            format!("WHARF_ENGINE={asked} asks for io_uring, and the kernel gives none: {}", explain(&error).0),
            "unset WHARF_ENGINE",
        ),
    };
    Ok(vec![sockets, files])
}

/// The kernel's answer to a port that takes nothing but io_uring.
fn ring_refused() -> Result<(), Trouble> {
    let port = CompletionPort::<(), ()>::options().file_engine(FileEngine::Ring).build().map_err(Trouble::Engine)?;
    sync(&port)
}

/// `kernel.io_uring_disabled`, which is there since Linux 6.6: 0 for everybody may have a ring, 1 for a group and the
/// privileged, 2 for nobody.
fn disabled() -> Option<u64> {
    number("/proc/sys/kernel/io_uring_disabled")
}

fn why_ring() -> String {
    match disabled() {
        Some(0) => "a sync ran on it; kernel.io_uring_disabled is 0".into(),
        Some(setting) => format!("a sync ran on it, because this user may; kernel.io_uring_disabled is {setting}"),
        None => "a sync ran on it".into(),
    }
}

/// Why the kernel refused a ring, and what to do about it.
fn explain(error: &io::Error) -> (String, String) {
    let (cause, remedy) = match (error.raw_os_error(), disabled()) {
        (Some(EPERM), Some(setting @ 1..)) => {
            (format!("kernel.io_uring_disabled is {setting}"), "sudo sysctl -w kernel.io_uring_disabled=0".to_owned())
        }
        (Some(EPERM | ENOSYS), _) if filtered() => (
            "it runs under a seccomp filter".to_owned(),
            profile("io_uring_setup, io_uring_enter and io_uring_register"),
        ),
        (Some(EPERM), _) => {
            ("a security policy forbids it".to_owned(), "ausearch -m avc -c wharf  # what SELinux forbade".to_owned())
        }
        (Some(ENOSYS), _) => {
            ("the kernel was built without it".to_owned(), "zgrep IO_URING /proc/config.gz".to_owned())
        }
        (Some(EINVAL), _) => {
            ("the kernel is older than 6.1".to_owned(), "uname -r  # and install a newer one".to_owned())
        }
        (Some(EMFILE), _) => ("the limit of descriptors is too low even for this".to_owned(), raise_descriptors()),
        (Some(ENFILE), _) => ("the whole system has too many open files".to_owned(), "sysctl fs.file-nr".to_owned()),
        (Some(ENOMEM), _) => ("memory is limited too much".to_owned(), "ulimit -l unlimited".to_owned()),
        _ => ("the reason is not known".to_owned(), "RUST_LOG=debug wharf doctor".to_owned()),
    };
    (format!("{error}; {cause}"), remedy)
}

/// Most filters are a container's.
fn profile(calls: &str) -> String {
    format!("podman run --security-opt seccomp=PROFILE.json …  # or docker; a profile that allows {calls}")
}

/// The process is under a seccomp filter (`Seccomp: 2`, proc_pid_status(5)).
fn filtered() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status.lines().filter_map(|line| line.strip_prefix("Seccomp:")).any(|mode| mode.trim() == "2")
    })
}

fn pidfd() -> Finding {
    match pidfd_open(getpid(), PidfdFlags::empty()) {
        Ok(_) => Finding::fine("pidfd_open", "yes", ""),
        Err(error) => Finding::warning(
            "pidfd_open",
            "no",
            format!("{}; processes cannot be waited for by descriptor", io::Error::from(error)),
            if filtered() {
                "allow pidfd_open in the seccomp profile"
            } else {
                "uname -r  # Linux 5.3 and later have it"
            },
        ),
    }
}

// --- Limits ---

fn limits() -> Vec<Finding> {
    [Some(descriptors()), open_files(), descriptors_most(), backlog(), Some(locked_memory())]
        .into_iter()
        .flatten()
        .collect()
}

fn descriptors() -> Finding {
    let limit = getrlimit(Resource::Nofile);
    let soft = limit.current.unwrap_or(u64::MAX);
    let value = format!("{} (at most {})", count(limit.current), count(limit.maximum));
    if soft >= DESCRIPTORS {
        return Finding::fine("descriptors", value, "each connection and open file takes one");
    }
    let why = format!("each connection and open file takes one: {soft} are less than {DESCRIPTORS} connections need");
    Finding::warning("descriptors", value, why, raise_descriptors())
}

fn raise_descriptors() -> String {
    match getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX) {
        hard @ DESCRIPTORS.. => format!("ulimit -n {}", hard.min(1 << 20)),
        _ => format!("sudo prlimit --pid $$ --nofile={0}:{0}", 1 << 20),
    }
}

/// `fs.file-nr`: open, free and most (proc_sys_fs(5)).
fn open_files() -> Option<Finding> {
    let text = fs::read_to_string("/proc/sys/fs/file-nr").ok()?;
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    let &[open, _, most] = &numbers[..] else { return None };
    let value = format!("{open} of {most}");
    if open <= most / 100 * FILES_PERCENT_MAX {
        return Some(Finding::fine("fs.file-nr", value, "open in the whole system"));
    }
    let remedy = format!("sudo sysctl -w fs.file-max={}", most.saturating_mul(2));
    Some(Finding::warning("fs.file-nr", value, "the whole system is about to run out of open files", remedy))
}

fn descriptors_most() -> Option<Finding> {
    let most = number("/proc/sys/fs/nr_open")?;
    if most >= DESCRIPTORS {
        return Some(Finding::fine("fs.nr_open", most.to_string(), "the highest limit of descriptors that can be set"));
    }
    let why = format!("no limit of descriptors can be higher, and {DESCRIPTORS} connections need more");
    Some(Finding::warning("fs.nr_open", most.to_string(), why, format!("sudo sysctl -w fs.nr_open={}", 1 << 20)))
}

fn backlog() -> Option<Finding> {
    let most = number("/proc/sys/net/core/somaxconn")?;
    if most >= BACKLOG {
        return Some(Finding::fine("somaxconn", most.to_string(), "as many connections may wait to be accepted"));
    }
    let why = format!("more connections that come at once than this are turned away; the library asks for {BACKLOG}");
    Some(Finding::warning("somaxconn", most.to_string(), why, format!("sudo sysctl -w net.core.somaxconn={BACKLOG}")))
}

fn locked_memory() -> Finding {
    let limit = getrlimit(Resource::Memlock);
    let kib = limit.current.map(|bytes| bytes / 1024);
    // Since Linux 5.12 (io_uring_setup(2)), and the library's ring needs 6.1.
    Finding::fine(
        "memlock",
        format!("{} KiB", count(kib)),
        "does not bite: a ring's memory does not count since Linux 5.12",
    )
}

fn count(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".into(), |limit| limit.to_string())
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
