//! The suite in hostile surroundings, each in a process of its own: a real filter of system calls, real limits.
//!
//! The whole suite takes minutes in all of them, so `cargo test` runs the groups of rows that the surroundings touch;
//! `.ci/run` runs the tests that are ignored, too.

#![cfg(target_os = "linux")]

use std::process::Command;

/// Runs the suite as somebody would who has nothing better; fails with what failed.
#[track_caller]
fn passes(arguments: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_wharf-conformance")).args(arguments).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {}\n{out}{err}", output.status);
}

/// The suite, or some groups of it, where something is refused.
#[track_caller]
fn passes_in(surroundings: &str, engine: &str, groups: &[&str]) {
    let mut arguments = vec!["--engine", engine, "--hostile", surroundings];
    arguments.extend(groups.iter().flat_map(|group| ["--row", group]));
    passes(&arguments);
}

const FILES: &[&str] = &["F", "T"];

#[test]
fn file_rows_pass_where_a_filter_refuses_io_uring() {
    passes_in("io_uring_setup=EPERM", "auto", FILES);
    // Refused when the ring is there already.
    passes_in("io_uring_register=EPERM", "auto", FILES);
    passes_in("io_uring_enter=ENOMEM", "auto", FILES);
}

#[test]
fn rows_of_files_and_streams_pass_where_no_memory_may_be_locked() {
    passes_in("memlock=0", "auto", &["F", "T", "R", "S"]);
}

#[test]
fn rows_of_connections_and_files_pass_with_64_descriptors() {
    for engine in ["epoll+io_uring", "poll+threads"] {
        passes_in("descriptors=64", engine, &["A", "X", "R", "S", "F"]);
    }
}

#[test]
fn a_short_soak_ends_well() {
    passes(&["soak", "--seconds", "5", "--engine", "auto"]);
}

#[test]
fn a_short_soak_with_poll_and_threads_ends_well() {
    passes(&["soak", "--seconds", "5", "--engine", "poll+threads"]);
}

#[test]
#[ignore = "takes long; a part of .ci/run"]
fn the_suite_passes_where_a_filter_refuses_io_uring() {
    passes_in("io_uring_setup=EPERM", "auto", &[]);
}

#[test]
#[ignore = "takes long; a part of .ci/run"]
fn file_rows_pass_with_each_number_that_a_filter_refuses_a_call_of_io_uring_with() {
    for error in ["ENOSYS", "EACCES", "EINVAL", "ENOMEM", "EMFILE", "ENFILE", "EFAULT", "EOPNOTSUPP", "EBUSY"] {
        passes_in(&format!("io_uring_setup={error}"), "auto", FILES);
    }
    for call in ["io_uring_register", "io_uring_enter"] {
        for error in ["EPERM", "ENOSYS", "ENOMEM"] {
            passes_in(&format!("{call}={error}"), "auto", FILES);
        }
    }
}

#[test]
#[ignore = "takes long; a part of .ci/run"]
fn the_suite_passes_where_no_memory_may_be_locked() {
    passes_in("memlock=0", "auto", &[]);
}

#[test]
#[ignore = "takes long; a part of .ci/run"]
fn the_suite_passes_with_64_descriptors() {
    for engine in ["epoll+io_uring", "poll+threads"] {
        passes_in("descriptors=64", engine, &[]);
    }
}
