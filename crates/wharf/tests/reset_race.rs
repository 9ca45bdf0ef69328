//! Resets that somebody else is told first. Linux tells the error once: to a send say, and the receive then sees what
//! looks like an end of the stream; or to whoever asks how a connect has ended.

mod common;

use common::{connection, eventually, port, reset};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
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

#[test]
fn a_connection_that_is_reset_before_anybody_looks_was_made() {
    const ROUND: usize = 16;
    let ledger = common::Ledger::new();
    let port = port(2, Wake::Eager);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let resets = Arc::new(AtomicUsize::new(0));
    let count = resets.clone();
    // Ends with the process: nobody connects any more.
    thread::spawn(move || {
        for (nth, peer) in listener.incoming().map(Result::unwrap).enumerate() {
            if nth % 2 == 0 {
                (&peer).write_all(b"word").unwrap();
            }
            reset(peer);
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    for round in 1..=50 {
        for _ in 0..ROUND {
            port.connect(address, 1, ledger.token(1)).unwrap();
        }
        // Nobody is in `get` meanwhile.
        eventually("all are reset", || resets.load(Ordering::SeqCst) == round * ROUND);
        let streams: Vec<_> = (0..ROUND)
            .map(|_| {
                let (_, stream, result) = common::next_connected(&port);
                result.expect("it was made");
                stream
            })
            .collect();
        for stream in streams {
            loop {
                if let Err(refused) = stream.recv(Buffer::with_capacity(100), ledger.token(2)) {
                    assert_eq!(refused.error.raw_os_error(), Some(104));
                    break;
                }
                match common::next_received(&port).result {
                    Ok(4) => {}
                    other => {
                        assert_eq!(other.map_err(|error| error.raw_os_error()), Err(Some(104)));
                        break;
                    }
                }
            }
        }
    }
}
