//! `--latency`: a connection beside the streams on which small messages go to and fro, so that what the load does to
//! others is seen. The server, if it is wharf, sends back what it gets; a stock server answers "busy", and nothing is measured.
//!
//! The messages go by a schedule, whether or not the earlier ones are answered: a client that waited for each answer would ask
//! seldom just when answers take long, and its percentiles would look better than what others see.

use crate::op::{Op, Port, Stream};
use crate::protocol::Cookie;
use crate::report::Latency;
use hdrhistogram::Histogram;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use wharf::{Buffer, Event};

const MESSAGE: [u8; 16] = *b"wharf perf ping\n";
/// Between two messages: a thousand a second, which is no load.
const PERIOD: Duration = Duration::from_millis(1);
/// Messages that may be unanswered; while there are so many none is sent.
const UNANSWERED_MAX: usize = 1000;
/// What takes longer counts as so long: an hour. A histogram that grows with its values would need a way to fail.
const ROUND_TRIP_US_MAX: u64 = 3_600_000_000;
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
    /// When the messages that are not answered yet were sent.
    sent: VecDeque<Instant>,
    /// When the next is due.
    due: Instant,
    /// Bytes of the oldest one's answer.
    answered: usize,
    histogram: Histogram<u64>,
    counting: bool,
    ended: bool,
}

impl Pings {
    fn new(port: &Port, stream: Option<Stream>, cookie: Option<Cookie>) -> Arc<Pings> {
        let histogram = Histogram::new_with_max(ROUND_TRIP_US_MAX, 3).expect("three digits are allowed");
        let state = State {
            stream,
            cookie,
            sent: VecDeque::new(),
            due: Instant::now(),
            answered: 0,
            histogram,
            counting: false,
            ended: false,
        };
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
        state.stream = port.connect_with(socket, peer, (), Op::Ping(pings.clone())).ok();
        drop(state);
        pings
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What comes from now on counts: the omitted time is over.
    pub(crate) fn count(&self) {
        let mut state = self.state();
        state.counting = true;
        state.histogram.reset();
    }

    /// Ends it; what was measured, if anything was.
    pub(crate) fn end(&self) -> Option<Latency> {
        let mut state = self.state();
        state.ended = true;
        if let Some(stream) = state.stream.take() {
            stream.close();
        }
        let histogram = &state.histogram;
        let at = |quantile| histogram.value_at_quantile(quantile);
        (!histogram.is_empty()).then(|| Latency {
            pings: histogram.len(),
            min: histogram.min(),
            mean: histogram.mean(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
        })
    }

    fn receive(self: &Arc<Self>, state: &State) {
        if let (Some(stream), false) = (&state.stream, state.ended) {
            let _ = stream.recv(Buffer::with_capacity(RECEIVE_BYTES), Op::Ping(self.clone()));
        }
    }

    /// Sends a message, behind `head`, and sees to it that the next goes in its time.
    fn ping(self: &Arc<Self>, state: &mut State, head: &[u8]) {
        let (Some(stream), false) = (&state.stream, state.ended) else { return };
        let now = Instant::now();
        if state.sent.len() < UNANSWERED_MAX {
            state.sent.push_back(now);
            let _ = stream.send([head, &MESSAGE].concat(), Op::Nothing);
        }
        // What this process itself was too late for is left out: it would go all at once.
        let late = now.saturating_duration_since(state.due).as_nanos() / PERIOD.as_nanos();
        state.due += PERIOD.saturating_mul(u32::try_from(late + 1).unwrap_or(u32::MAX));
        let _ = self.port.timer(state.due.saturating_duration_since(now), (), Op::Ping(self.clone()));
    }

    /// So many bytes of answers have come.
    fn answered(state: &mut State, bytes: usize) {
        let now = Instant::now();
        state.answered += bytes;
        while state.answered >= MESSAGE.len() {
            state.answered -= MESSAGE.len();
            let Some(sent) = state.sent.pop_front() else { return };
            if state.counting {
                let micros = now.saturating_duration_since(sent).as_micros();
                state.histogram.saturating_record(u64::try_from(micros).unwrap_or(u64::MAX));
            }
        }
    }

    pub(crate) fn event(self: &Arc<Self>, event: Event<(), Op>) {
        let mut state = self.state();
        match event {
            Event::Connected { stream, result: Ok(()) } => {
                let Some(cookie) = state.cookie else { return };
                let _ = stream.set_nodelay(true);
                state.stream = Some(stream);
                state.due = Instant::now();
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
                let _ = stream.send(buffer, Op::Ping(self.clone()));
            }
            Event::Sent { result: Ok(_), .. } => self.receive(&state),
            Event::Received { buffer, result: Ok(bytes), .. } => {
                if buffer[0] == 0xFF {
                    log::info!("the server has no place for pings: it is not wharf, or busy");
                    state.ended = true;
                    state.stream = None;
                    return;
                }
                Self::answered(&mut state, bytes);
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

    /// A peer that takes messages and is silent for a while is asked on, and each answer counts for its own message.
    #[test]
    fn messages_go_by_their_schedule_though_answers_are_held_up() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let port: Port = wharf::CompletionPort::new().unwrap();
        let pool = crate::op::run(&port, Some(2)).unwrap();
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
        while pings.state().histogram.len() < 20 {
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
