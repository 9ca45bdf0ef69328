//! The examples, run as their headers say: each is started as a process of its own, talked to, and ended.

#![cfg(unix)]

use rustix::process::Signal;
use std::io::Write;
use wharf_testkit::example::{Example, all_are_tested, client, read_until};

#[test]
fn chat_tells_who_comes_says_and_goes() {
    let mut example = Example::start("chat", &["127.0.0.1:0"]);
    let address = example.address();
    let mut first = client(address);
    first.write_all(b"alone\n").unwrap();
    read_until(&mut first, "alone\n");
    let mut second = client(address);
    let name = second.local_addr().unwrap();
    read_until(&mut first, &format!("* {name} has come\n"));
    second.write_all(b"hello\n").unwrap();
    read_until(&mut first, "hello\n");
    read_until(&mut second, "hello\n");
    drop(second);
    read_until(&mut first, &format!("* {name} has gone: the peer closed the connection\n"));
    example.signal(Signal::INT);
    let (status, said) = example.end();
    assert!(status.success(), "{status}");
    assert!(said.ends_with(" sessions ended, 0 of them cut off\n"), "{said}");
}

#[test]
fn every_example_is_tested_and_says_how_to_try_it() {
    all_are_tested(env!("CARGO_MANIFEST_DIR"), include_str!("examples.rs"));
}
