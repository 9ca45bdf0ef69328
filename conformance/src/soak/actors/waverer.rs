//! Receives that are cancelled while data comes.

use crate::soak::ledger::Kind;
use crate::soak::stage::{Actor, ECANCELED, Event, Player, Stage, Stream, lock};
use crate::system;
use fastrand::Rng;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use wharf::{Buffer, OperationId};

/// A receive that is cancelled while its data comes, or does not come: what was written is read in the end, in order,
/// each byte once.
pub(super) struct Waverer {
    stage: Arc<Stage>,
    peer: system::Socket,
    state: Mutex<Wavering>,
    _player: Player,
}

struct Wavering {
    random: Rng,
    stream: Option<Stream>,
    written: usize,
    read: usize,
    outstanding: Option<OperationId>,
    /// Packets that are still to come.
    awaited: u8,
}

/// What the bytes count up to.
const PERIOD: usize = 251;

impl Waverer {
    pub(super) fn enter(stage: &Arc<Stage>) -> io::Result<()> {
        let (own, peer) = system::pair()?;
        let stream = stage.port.associate(own, ()).map_err(|rejected| rejected.error)?;
        let state = Wavering {
            random: stage.random(),
            stream: Some(stream),
            written: 0,
            read: 0,
            outstanding: None,
            awaited: 0,
        };
        let waverer = Waverer { stage: stage.clone(), peer, state: Mutex::new(state), _player: stage.player() };
        Arc::new(waverer).start();
        Ok(())
    }

    fn start(self: Arc<Self>) {
        let stage = self.stage.clone();
        let mut state = lock(&self.state);
        if stage.is_stopping() && state.read == state.written {
            // Packets of this actor are not outstanding, so the last handle goes here.
            state.stream = None;
            return;
        }
        state.awaited = 2;
        if let Some(stream) = &state.stream {
            let op = stage.op(Kind::Receive, self.clone(), 0);
            let id = stage.issued(stream.recv(Buffer::with_capacity(100), op));
            state.outstanding = id;
        }
        stage.post(0, self.clone(), 0);
    }

    /// Writes, or cancels, or both.
    fn waver(&self, state: &mut Wavering) {
        let waiting = state.written - state.read;
        let way = state.random.u8(0..3);
        let cancel = |state: &Wavering| {
            if let Some(id) = state.outstanding {
                self.stage.port.cancel(id);
            }
        };
        if way == 0 {
            cancel(state);
        }
        if way != 1 && waiting < 1000 && !self.stage.is_stopping() {
            let count = state.random.usize(1..200);
            let bytes: Vec<u8> = (state.written..state.written + count).map(|at| (at % PERIOD) as u8).collect();
            match (&self.peer).write_all(&bytes) {
                Ok(()) => state.written += count,
                Err(error) => self.stage.fault(format!("writing to a pair of sockets: {error}")),
            }
        }
        if way == 1 {
            cancel(state);
        } else if way == 0 && state.written == state.read {
            // Nothing was written: cancelled above.
        } else if state.written == state.read {
            cancel(state);
        }
    }
}

impl Actor for Waverer {
    fn took(self: Arc<Self>, _step: u8, event: Event) {
        let over = {
            let mut state = lock(&self.state);
            match event {
                Event::Posted { .. } => self.waver(&mut state),
                Event::Received { buffer, result: Ok(bytes @ 1..), .. } => {
                    let in_order = (state.read..).zip(&buffer[..]).all(|(at, &byte)| (at % PERIOD) as u8 == byte);
                    self.stage.check(in_order, "bytes around a cancelled receive are not in order");
                    state.read += bytes;
                }
                Event::Received { result: Err(error), .. } if error.raw_os_error() == Some(ECANCELED) => {}
                other => self.stage.fault(format!("a receive that is cancelled: {other:?}")),
            }
            state.awaited -= 1;
            state.awaited == 0
        };
        if over {
            self.start();
        }
    }
}
