//! A reset that a send and a receive find at the same time. Linux tells the error once, to the send say, and the receive
//! then sees what looks like an end of the stream.

mod common;

use common::{connection, eventually, port, reset};
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::thread;
use wharf::{Buffer, Event, Wake};

#[test]
fn a_reset_is_no_end_of_stream_even_if_a_send_has_seen_it_first() {
    let ledger = common::Ledger::new();
    let much: Arc<[u8]> = vec![0; 32 << 20].into();
    for _ in 0..300 {
        let port = port(2, Wake::Eager);
        let (stream, mut peer) = connection(&port, 1);
        let results = Arc::new(Mutex::new(Vec::new()));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (port, results, mint) = (port.clone(), results.clone(), ledger.mint());
                thread::spawn(move || {
                    while let Ok(packet) = port.get() {
                        packet.context.arrive();
                        if let Event::Received { stream, buffer, result } = packet.event {
                            let more = matches!(result, Ok(1..));
                            // Before the next one is issued, which another thread may take.
                            results.lock().unwrap().push(result.map_err(|error| error.raw_os_error()));
                            if more {
                                let _ = stream.recv(buffer, mint.token(0));
                            }
                        }
                    }
                })
            })
            .collect();
        stream.recv(Buffer::with_capacity(100), ledger.token(0)).unwrap();
        stream.send(much.clone(), ledger.token(0)).unwrap();
        peer.read_exact(&mut [0]).unwrap();
        peer.write_all(b"last words").unwrap();
        reset(peer);
        eventually("the receiving side has ended", || !matches!(results.lock().unwrap().last(), None | Some(Ok(1..))));
        port.close();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(*results.lock().unwrap(), [Ok(10), Err(Some(104))]);
    }
}
