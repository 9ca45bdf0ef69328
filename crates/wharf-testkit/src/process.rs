//! Tests in processes of their own, and what a process says and costs.

use std::io;
use std::time::Duration;

const CHILD: &str = "WHARF_TEST_CHILD";
const DONE: &str = "the child has done its part";
/// A child that hangs is killed by its own alarm.
const CHILD_SECONDS_MAX: u32 = 120;

/// Runs `body` in a process of its own: the test's executable started again for the test `name` alone.
#[track_caller]
pub fn in_child(name: &str, body: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some_and(|child| child == name) {
        alarm();
        body();
        println!("{DONE}");
        return;
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, name)
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "the child failed: {}\n{out}\n{err}", output.status);
    assert!(out.contains(DONE), "the child ran no test: is the name {name} right?\n{out}\n{err}");
}

/// Kills the process should it hang.
#[cfg(unix)]
#[allow(unsafe_code)]
pub fn alarm() {
    // SAFETY: alarm only sets the process's timer; SIGALRM's default action ends the process.
    unsafe { libc::alarm(CHILD_SECONDS_MAX) };
}

/// Kills the process should it hang.
#[cfg(windows)]
pub fn alarm() {
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(CHILD_SECONDS_MAX.into()));
        std::process::exit(142);
    });
}

/// Processor time that this process has used.
#[cfg(unix)]
pub fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
}

/// Says loudly that a part of a test was not done, and why.
pub fn skipped(what: &str, why: &str) {
    use std::io::Write;
    // Not by `eprintln`, whose output a passed test swallows.
    let _ = writeln!(io::stderr(), "SKIPPED: {what}: {why}");
}
