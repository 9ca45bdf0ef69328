//! What an idle connection costs in heap memory, counted by the allocator.

#![cfg(target_os = "linux")]

use std::os::unix::net::UnixStream;
use wharf::CompletionPort;
use wharf_testkit::heap::{Counting, live};
use wharf_testkit::limits::descriptors_for;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A test file with one test: nothing else allocates meanwhile.
#[test]
fn an_idle_connection_holds_fewer_than_three_hundred_bytes() {
    let count = descriptors_for(10_000);
    let port = CompletionPort::<u64, u64>::new().unwrap();
    // One connection, under ten thousand descriptors: for the port they are as many.
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut streams = Vec::with_capacity(count);
    let before = live();
    for key in 0..count as u64 {
        let stream = port.associate(ours.try_clone().unwrap(), key).unwrap();
        stream.recv_pooled(key).unwrap();
        streams.push(stream);
    }
    let each = (live() - before) / count;
    println!("{each} bytes for each of {count} idle connections at port level");
    assert!(each < 300, "{each} bytes for each of {count} idle connections");
    assert!(each > 50, "it was not counted");
}
