//! A game server with a fixed tick, whose handlers may block.
//!
//! `cargo run --example game [ADDRESS:PORT]`, then `nc 127.0.0.1 7000` a few times; move with the letters n, e, s, w
//!
//! Twenty times a second the world moves on and every player is told. A `t` makes its handler think for 100 ms, as a
//! database would: the tick and the other players go on, because the port lets another thread run meanwhile. A player
//! that does not read misses updates, and costs nothing else.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};
use wharf::signal::SIGINT;
use wharf::{Buffer, CompletionPort, Event, Stream, Workers};

const TICK: Duration = Duration::from_millis(50);

/// The key of a player's stream; nobody's for the rest of the port.
#[derive(Clone, Default)]
struct Player(Arc<(AtomicI32, AtomicI32, AtomicBool)>);

type Players = Mutex<HashMap<u64, Stream<Player, ()>>>;

fn act(Player(player): &Player, letters: &[u8]) {
    let (x, y, _) = &**player;
    for letter in letters {
        match letter {
            b'e' => drop(x.fetch_add(1, Relaxed)),
            b'w' => drop(x.fetch_sub(1, Relaxed)),
            b'n' => drop(y.fetch_add(1, Relaxed)),
            b's' => drop(y.fetch_sub(1, Relaxed)),
            b't' => sleep(2 * TICK),
            _ => {}
        }
    }
}

fn tell_all(players: &Players, tick: u64) {
    let everybody: Vec<_> = players.lock().unwrap().values().cloned().collect();
    for stream in &everybody {
        let Player(player) = stream.key();
        let (x, y, told) = &**player;
        // One update at a time: while the last one is on its way, this one is left out.
        if !told.swap(true, Relaxed) {
            let line = format!(
                "tick {tick}: {} players, you are at {},{}\n",
                everybody.len(),
                x.load(Relaxed),
                y.load(Relaxed)
            );
            let _ = stream.send(line, ());
        }
    }
}

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".into());
    let port = CompletionPort::<Player, ()>::options().concurrency(2).build()?;
    let listener = port.listen(address, Player::default())?;
    listener.accept(())?;
    port.signal(SIGINT, Player::default(), ())?;
    port.interval(TICK, Player::default(), ())?;
    println!("listening on {}", listener.local_addr()?);

    let players = Players::default();
    let clock = Arc::new(Mutex::new((0, Instant::now(), Duration::ZERO)));
    let (associate, closing, watched) = (port.clone(), port.clone(), clock.clone());
    let pool = port.start(Workers::default(), move |packet| match packet.event {
        Event::Accepted { listener, result } => {
            let _ = listener.accept(());
            let Ok((socket, _)) = result else { return };
            let Ok(stream) = associate.associate(socket, Player::default()) else { return };
            let _ = stream.recv(Buffer::with_capacity(64), ());
            players.lock().unwrap().insert(stream.number(), stream);
        }
        Event::Received { stream, buffer, result: Ok(1..) } => {
            act(stream.key(), &buffer);
            let _ = stream.recv(buffer, ());
        }
        Event::Received { stream, .. } => drop(players.lock().unwrap().remove(&stream.number())),
        Event::Sent { stream, .. } => stream.key().0.2.store(false, Relaxed),
        Event::Elapsed { result: Ok(periods) } => {
            let tick = {
                let (tick, last, worst) = &mut *clock.lock().unwrap();
                *tick += periods;
                *worst = (*worst).max(last.elapsed().saturating_sub(TICK));
                *last = Instant::now();
                *tick
            };
            tell_all(&players, tick);
        }
        Event::Signal { .. } => closing.close(),
        _ => {}
    })?;
    pool.join();
    let (ticks, _, worst) = *watched.lock().unwrap();
    println!("{ticks} ticks, the worst {worst:.1?} late");
    Ok(())
}
