//! Lines on their way to whoever reads them: put down under a lock, let out under none.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Where lines go. Called by one thread at a time, and under no lock of a test.
pub trait Sink: Send {
    /// A line of the report.
    fn line(&mut self, text: &str);
    /// A line about what went wrong.
    fn error(&mut self, text: &str);
    /// A server listens, on this port.
    fn listening(&mut self, _port: u16) {}
    /// How the test stands, a few times a second; only if [`wants_live`](Sink::wants_live).
    fn live(&mut self, _live: &Live) {}
    /// Whether [`live`](Sink::live) is to be called.
    fn wants_live(&self) -> bool {
        false
    }
}

/// How a running test stands.
#[derive(Clone, Copy, Debug)]
pub struct Live {
    /// Since it began, the omitted time included.
    pub elapsed: Duration,
    /// How long it will take; `None`: it does not end by time.
    pub total: Option<Duration>,
    /// What this end sends and receives just now, bits a second.
    pub bits_per_second: [f64; 2],
}

enum Said {
    Line(String),
    Error(String),
    Live(Live),
    Listening(u16),
}

/// Lines that may wait: strangers can cause some, and whoever reads them may have stopped to.
const WAITING_MAX: usize = 65_536;

/// Lines on their way to a [`Sink`], in order. Whoever holds a lock only queues; whoever holds none lets them out.
pub(crate) struct Log {
    queue: Mutex<VecDeque<Said>>,
    sink: Mutex<Box<dyn Sink>>,
    left_out: AtomicU64,
    pub(crate) wants_live: bool,
}

impl Log {
    pub(crate) fn new(sink: Box<dyn Sink>) -> Arc<Log> {
        let wants_live = sink.wants_live();
        Arc::new(Log { queue: Mutex::default(), sink: Mutex::new(sink), left_out: AtomicU64::new(0), wants_live })
    }

    fn say(&self, said: Said) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() < WAITING_MAX {
            queue.push_back(said);
        } else {
            self.left_out.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn line(&self, text: impl Into<String>) {
        self.say(Said::Line(text.into()));
    }

    pub(crate) fn error(&self, text: impl Into<String>) {
        self.say(Said::Error(text.into()));
    }

    pub(crate) fn listening(&self, port: u16) {
        self.say(Said::Listening(port));
    }

    pub(crate) fn live(&self, live: Live) {
        self.say(Said::Live(live));
    }

    fn is_empty(&self) -> bool {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Lets out what is queued, unless another thread is at it: that one looks again when it is through.
    pub(crate) fn flush(&self) {
        while !self.is_empty() {
            let Ok(mut sink) = self.sink.try_lock() else { return };
            self.let_out(&mut **sink);
        }
    }

    /// The same, waiting for another thread.
    pub(crate) fn finish(&self) {
        self.let_out(&mut **self.sink.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn let_out(&self, sink: &mut dyn Sink) {
        loop {
            let said = self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match said {
                Some(Said::Line(text)) => sink.line(&text),
                Some(Said::Error(text)) => sink.error(&text),
                Some(Said::Live(live)) => sink.live(&live),
                Some(Said::Listening(port)) => sink.listening(port),
                None => match self.left_out.swap(0, Relaxed) {
                    0 => return,
                    count => sink.error(&format!("{count} lines were left out, because nobody read those before them")),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};

    struct Said(Sender<String>);

    impl Sink for Said {
        fn line(&mut self, text: &str) {
            let _ = self.0.send(text.into());
        }

        fn error(&mut self, text: &str) {
            let _ = self.0.send(format!("error: {text}"));
        }
    }

    #[test]
    fn lines_that_nobody_reads_take_so_much_memory_and_no_more() {
        let (into, from) = channel();
        let log = Log::new(Box::new(Said(into)));
        for number in 0..WAITING_MAX + 3 {
            log.line(number.to_string());
        }
        log.flush();
        log.line("afterwards");
        log.finish();
        let said: Vec<String> = from.try_iter().collect();
        assert_eq!(said.len(), WAITING_MAX + 2);
        assert_eq!(said[WAITING_MAX - 1], (WAITING_MAX - 1).to_string());
        assert!(said[WAITING_MAX].starts_with("error: 3 lines were left out"));
        assert_eq!(said[WAITING_MAX + 1], "afterwards");
    }
}
