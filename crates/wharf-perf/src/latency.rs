//! `--latency`: a connection beside the streams on which one small message goes to and fro, so that what the load does to
//! others is seen. The server, if it is wharf, sends back what it gets; a stock server answers "busy", and nothing is measured.

use crate::op::{Op, Port, Stream};
use crate::protocol::Cookie;
use crate::report::Latency;
use hdrhistogram::Histogram;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use wharf::{Buffer, Event};

const MESSAGE: [u8; 16] = *b"wharf perf ping\n";
/// Between an answer and the next message: a thousand a second at most, which is no load.
const PAUSE: Duration = Duration::from_millis(1);

/// One end of the connection.
pub(crate) struct Pings {
    port: Port,
    state: Mutex<State>,
}

struct State {
    stream: Option<Stream>,
    /// The client's; the server has nothing to measure.
    cookie: Option<Cookie>,
    sent: Instant,
    missing: usize,
    histogram: Histogram<u64>,
    counting: bool,
    ended: bool,
}

impl Pings {
    fn new(port: &Port, stream: Option<Stream>, cookie: Option<Cookie>) -> Arc<Pings> {
        let histogram = Histogram::new(3).expect("three digits are allowed");
        let state =
            State { stream, cookie, sent: Instant::now(), missing: 0, histogram, counting: false, ended: false };
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
            let _ = stream.recv(Buffer::with_capacity(MESSAGE.len()), Op::Ping(self.clone()));
        }
    }

    fn ping(self: &Arc<Self>, state: &mut State, head: &[u8]) {
        let (Some(stream), false) = (&state.stream, state.ended) else { return };
        state.sent = Instant::now();
        state.missing = MESSAGE.len();
        let _ = stream.send([head, &MESSAGE].concat(), Op::Nothing);
        self.receive(state);
    }

    pub(crate) fn event(self: &Arc<Self>, event: Event<(), Op>) {
        let mut state = self.state();
        match event {
            Event::Connected { stream, result: Ok(()) } => {
                let Some(cookie) = state.cookie else { return };
                let _ = stream.set_nodelay(true);
                state.stream = Some(stream);
                self.ping(&mut state, cookie.bytes());
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
                state.missing = state.missing.saturating_sub(bytes);
                if state.missing > 0 {
                    return self.receive(&state);
                }
                let micros = state.sent.elapsed().as_micros();
                if state.counting {
                    state.histogram.saturating_record(u64::try_from(micros).unwrap_or(u64::MAX));
                }
                let _ = self.port.timer(PAUSE, (), Op::Ping(self.clone()));
            }
            Event::Elapsed { result: Ok(_) } => self.ping(&mut state, &[]),
            _ => {}
        }
    }
}
