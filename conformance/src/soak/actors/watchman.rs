//! Timers, some of them cancelled.

use crate::soak::stage::{Actor, ECANCELED, Event, Player, Stage, lock};
use fastrand::Rng;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wharf::OperationId;

/// A timer that goes off, or is cancelled in time, or just then.
pub(super) struct Watchman {
    stage: Arc<Stage>,
    state: Mutex<(Rng, Option<OperationId>, u8)>,
    _player: Player,
}

impl Watchman {
    pub(super) fn enter(stage: &Arc<Stage>) {
        let state = Mutex::new((stage.random(), None, 0));
        Arc::new(Watchman { stage: stage.clone(), state, _player: stage.player() }).start();
    }

    fn start(self: Arc<Self>) {
        let stage = self.stage.clone();
        if stage.is_stopping() {
            return;
        }
        let mut state = lock(&self.state);
        let after = Duration::from_micros(state.0.u64(..4000));
        // The post's handler cancels it, if it comes in time. Both packets have to come.
        state.2 = 2;
        state.1 = stage.timer(after, self.clone(), 0);
        stage.post(0, self.clone(), 0);
    }
}

impl Actor for Watchman {
    fn took(self: Arc<Self>, _step: u8, event: Event) {
        let over = {
            let mut state = lock(&self.state);
            match event {
                Event::Posted { .. } => {
                    if let (Some(id), true) = (state.1, state.0.bool()) {
                        self.stage.port.cancel(id);
                    }
                }
                Event::Elapsed { result: Ok(1) } => {}
                Event::Elapsed { result: Err(error) } if error.raw_os_error() == Some(ECANCELED) => {}
                other => self.stage.fault(format!("a timer: {other:?}")),
            }
            state.2 -= 1;
            state.2 == 0
        };
        if over {
            self.start();
        }
    }
}
