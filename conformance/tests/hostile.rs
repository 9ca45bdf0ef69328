//! The suite in hostile surroundings, each in a process of its own: a real filter of system calls, real limits.

#![cfg(target_os = "linux")]

use std::process::Command;

/// Runs the suite as somebody would who has nothing better; fails with what failed.
#[track_caller]
fn passes(arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_wharf-conformance")).args(arguments).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {}\n{out}{err}", output.status);
}

#[test]
fn the_suite_passes_where_a_filter_refuses_io_uring() {
    passes(&["--engine", "auto", "--hostile", "io_uring_setup=EPERM"]);
}

#[test]
fn file_rows_pass_with_each_number_that_a_filter_refuses_a_call_of_io_uring_with() {
    for error in ["ENOSYS", "EACCES", "EINVAL", "ENOMEM", "EMFILE", "ENFILE", "EFAULT", "EOPNOTSUPP", "EBUSY"] {
        passes(&["--engine", "auto", "--hostile", &format!("io_uring_setup={error}"), "--row", "F", "--row", "T"]);
    }
    // Refused when the ring is there already.
    for call in ["io_uring_register", "io_uring_enter"] {
        for error in ["EPERM", "ENOSYS", "ENOMEM"] {
            passes(&["--engine", "auto", "--hostile", &format!("{call}={error}"), "--row", "F", "--row", "T"]);
        }
    }
}

#[test]
fn the_suite_passes_where_no_memory_may_be_locked() {
    passes(&["--engine", "auto", "--hostile", "memlock=0"]);
}

#[test]
fn the_suite_passes_with_64_descriptors() {
    for engine in ["epoll+io_uring", "poll+threads"] {
        passes(&["--engine", engine, "--hostile", "descriptors=64"]);
    }
}

#[test]
fn a_short_soak_ends_well() {
    for engine in ["auto", "poll+threads"] {
        passes(&["soak", "--seconds", "5", "--engine", engine]);
    }
}
