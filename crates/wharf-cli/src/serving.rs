//! How a server of this program runs, whatever it serves: it says where it listens, prints figures, ends by a signal,
//! and says at last what it has done.
//!
//! One thread, the attendant, takes signals and the ticks of the figures from a port of its own, so that the handlers'
//! port can be busy, or closed. The first signal wakes the main thread, which drains the server while the attendant
//! goes on printing figures; a second signal ends the program at once, at any time from then on.

use crate::options::Load;
use crate::port::no_port;
use crate::signals::{self, end_at_once};
use std::io::{self, Write};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};
use wharf::CompletionPort;

/// How long connections may take to end when the server does.
pub const SHUTDOWN: Duration = Duration::from_secs(5);

/// A server that is running.
pub trait Server: Sync {
    /// What it has done so far.
    type Totals;

    fn totals(&self) -> Self::Totals;

    /// One line of `--stats`, about the seconds from one moment to another.
    fn figures(before: &Self::Totals, now: &Self::Totals, seconds: f64) -> String;

    /// What is to be done now and then: see [`Control::tick_every`].
    fn tick(&self) {}

    /// Takes no more connections, and waits for those that there are, but no longer than this; how many are left.
    fn drain(&self, most: Duration) -> usize;

    /// Ends what is left, and returns the last line.
    fn end(self) -> String;
}

/// What the attendant is told.
#[derive(Clone, Copy)]
enum Order {
    Signal(i32),
    PrintFigures,
    Tick,
    /// There is nothing more to attend to.
    Leave,
}

/// The signals and timers of a server. To be made before its workers run, so that no signal ends it the hard way.
pub struct Control {
    port: CompletionPort<(), Order>,
}

impl Control {
    pub fn new(load: &Load) -> Result<Control, String> {
        let port = CompletionPort::<(), Order>::new().map_err(|error| no_port(&error))?;
        signals::catch(&port, Order::Signal)?;
        let control = Control { port };
        if let Some(seconds) = load.stats {
            control.every(Duration::from_secs(seconds.into()), Order::PrintFigures)?;
        }
        Ok(control)
    }

    /// Has [`Server::tick`] called so often.
    pub fn tick_every(&self, period: Duration) -> Result<(), String> {
        self.every(period, Order::Tick)
    }

    fn every(&self, period: Duration, order: Order) -> Result<(), String> {
        let timer = self.port.interval(period, (), order);
        timer.map(drop).map_err(|error| format!("a timer cannot be set: {error}"))
    }

    /// Runs the server until a signal comes, and ends it. `drain`: how long its connections may then go on by
    /// themselves.
    pub fn serve<S: Server>(self, places: &[String], server: S, drain: Option<Duration>) {
        // For people and for scripts: the first lines, with the real port. Serving does not depend on who reads them.
        let mut out = io::stdout();
        for place in places {
            let _ = writeln!(out, "listening on {place}").and_then(|()| out.flush());
        }
        thread::scope(|scope| {
            let (wake, woken) = channel();
            scope.spawn(|| self.attend(&server, wake));
            let _ = woken.recv();
            if let Some(most) = drain {
                let left = server.drain(most);
                log::info!("drained: {left} connections are left");
            }
            let _ = self.port.post(0, (), Order::Leave);
        });
        let port = self.port;
        thread::spawn(move || {
            while let Ok(packet) = port.get() {
                if let Order::Signal(number) = packet.context {
                    end_at_once(number);
                }
            }
        });
        let last = server.end();
        let _ = writeln!(io::stderr(), "{last}");
    }

    fn attend<S: Server>(&self, server: &S, wake: Sender<()>) {
        let mut last = (Instant::now(), server.totals());
        let mut signalled = false;
        while let Ok(packet) = self.port.get() {
            match packet.context {
                Order::Signal(number) if signalled => end_at_once(number),
                Order::Signal(number) => {
                    log::info!("signal {number}: the server ends");
                    signalled = true;
                    let _ = wake.send(());
                }
                Order::PrintFigures => {
                    let next = (Instant::now(), server.totals());
                    let seconds = next.0.duration_since(last.0).as_secs_f64().max(1e-9);
                    let _ = writeln!(io::stderr(), "{}", S::figures(&last.1, &next.1, seconds));
                    last = next;
                }
                Order::Tick => server.tick(),
                Order::Leave => return,
            }
        }
    }
}
