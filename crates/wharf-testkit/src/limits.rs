//! Limits of the process that tests come near.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of open files for this many connections, as far as it goes; returns for how many it is enough.
///
/// # Panics
///
/// In CI, when that is less.
pub fn descriptors_for(connections: usize) -> usize {
    const OTHERS: usize = 100;
    let wanted = (connections + OTHERS) as u64;
    let limits = getrlimit(Resource::Nofile);
    let allowed = limits.maximum.unwrap_or(u64::MAX).min(wanted);
    setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum: limits.maximum }).unwrap();
    let count = connections.min(usize::try_from(allowed).unwrap().saturating_sub(OTHERS));
    if count < connections {
        assert!(std::env::var_os("CI").is_none(), "the limit of open files is too low for {connections} connections");
        eprintln!("SKIPPED in part: with {count} connections, as the limit of open files allows no more");
    }
    count
}
