//! `--latency`: a connection beside the streams on which small messages go to and fro, so that what the load does to
//! others is seen. The server, if it is wharf, sends back what it gets; a stock server answers "busy", and nothing is
//! measured.

use crate::measure::figures::Latency;
use crate::measure::round_trips::RoundTripTimes;
use crate::protocol::{Cookie, state};
use crate::surroundings::port::{Op, Owner, Port, Stream};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use wharf::{Buffer, Event};

const MESSAGE: [u8; 16] = *b"wharf perf ping\n";
/// Bytes taken at a time: of several messages, where answers were held up.
const RECEIVE_BYTES: usize = 64 * MESSAGE.len();

/// One end of the connection.
pub(crate) struct Pings {
    port: Port,
    state: Mutex<State>,
}

struct State {
    stream: Option<Stream>,
    /// The client's; the server has nothing to measure.
    cookie: Option<Cookie>,
    times: RoundTripTimes,
    ended: bool,
}

impl Pings {
    fn new(port: &Port, stream: Option<Stream>, cookie: Option<Cookie>) -> Arc<Pings> {
        let state = State { stream, cookie, times: RoundTripTimes::new(MESSAGE.len()), ended: false };
        Arc::new(Pings { port: port.clone(), state: Mutex::new(state) })
    }

    /// The server's end.
    pub(crate) fn answer(port: &Port, stream: Stream) -> Arc<Pings> {
        let _ = stream.set_nodelay(true);
        let pings = Pings::new(port, Some(stream), None);
        pings.receive(&pings.state());
        pings
    }

    /// The client's end.
    pub(crate) fn ask(port: &Port, socket: std::net::TcpStream, peer: SocketAddr, cookie: Cookie) -> Arc<Pings> {
        let pings = Pings::new(port, None, Some(cookie));
        let mut state = pings.state();
        state.stream = port.connect_with(socket, peer, (), Op::of(pings.clone())).ok();
        drop(state);
        pings
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What comes from now on counts: the omitted time is over.
    pub(crate) fn count(&self) {
        self.state().times.count();
    }

    /// Ends it; what was measured, if anything was.
    pub(crate) fn end(&self) -> Option<Latency> {
        let mut state = self.state();
        state.ended = true;
        if let Some(stream) = state.stream.take() {
            stream.close();
        }
        state.times.found()
    }

    fn receive(self: &Arc<Self>, state: &State) {
        if let (Some(stream), false) = (&state.stream, state.ended) {
            let _ = stream.recv(Buffer::with_capacity(RECEIVE_BYTES), Op::of(self.clone()));
        }
    }

    /// Sends a message, behind `head`, and sees to it that the next goes in its time.
    fn ping(self: &Arc<Self>, state: &mut State, head: &[u8]) {
        let (Some(stream), false) = (&state.stream, state.ended) else { return };
        let (sends, wait) = state.times.ask(Instant::now());
        if sends {
            let _ = stream.send([head, &MESSAGE].concat(), Op::Nothing);
        }
        let _ = self.port.timer(wait, (), Op::of(self.clone()));
    }
}

impl Owner for Pings {
    fn completed(self: Arc<Self>, _: &Port, _: u64, event: Event<(), Op>) {
        let mut state = self.state();
        match event {
            Event::Connected { stream, result: Ok(()) } => {
                let Some(cookie) = state.cookie else { return };
                let _ = stream.set_nodelay(true);
                state.stream = Some(stream);
                state.times.begin(Instant::now());
                self.ping(&mut state, cookie.bytes());
                self.receive(&state);
            }
            Event::Received { result: Ok(0) | Err(_), .. } => {
                // A refusal, or the end.
                state.ended = true;
                state.stream = None;
            }
            Event::Received { stream, buffer, result: Ok(bytes) } if state.cookie.is_none() => {
                debug_assert_eq!(buffer.len(), bytes);
                // The next is read when this one is gone: whoever asks and does not read takes no memory.
                let _ = stream.send(buffer, Op::of(self.clone()));
            }
            Event::Sent { result: Ok(_), .. } => self.receive(&state),
            Event::Received { buffer, result: Ok(bytes), .. } => {
                if buffer[0] == state::ACCESS_DENIED as u8 {
                    log::info!("the server has no place for pings: it is not wharf, or busy");
                    state.ended = true;
                    state.stream = None;
                    return;
                }
                state.times.answered(Instant::now(), bytes);
                self.receive(&state);
            }
            Event::Elapsed { result: Ok(_) } => self.ping(&mut state, &[]),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::time::Duration;

    /// A peer that takes messages and is silent for a while is asked on, and each answer counts for its own message.
    #[test]
    fn messages_go_by_their_schedule_though_answers_are_held_up() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let port: Port = wharf::CompletionPort::new().unwrap();
        let pool = crate::surroundings::port::run(&port, Some(2)).unwrap();
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let pings = Pings::ask(&port, socket.into(), address, Cookie::random());
        pings.count();
        let (mut peer, _) = listener.accept().unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        peer.read_exact(&mut vec![0; Cookie::random().bytes().len()]).unwrap();
        // None of these was answered when the last came.
        let mut messages = vec![0; 20 * MESSAGE.len()];
        peer.read_exact(&mut messages).unwrap();
        assert!(messages.chunks(MESSAGE.len()).all(|message| message == MESSAGE));
        peer.write_all(&messages).unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        while pings.state().times.found().is_none_or(|found| found.pings < 20) {
            assert!(Instant::now() < until, "the answers are not counted");
            std::thread::yield_now();
        }
        let found = pings.end().unwrap();
        // The first waited for the nineteen behind it, each of which came a period after the one before.
        assert!(found.max >= 19_000 - 1_000 && found.min < found.max, "{found:?}");
        port.close();
        pool.join();
    }
}
