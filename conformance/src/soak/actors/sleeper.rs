//! Handlers that block, and that panic.

use crate::soak::stage::{Actor, Event, Player, Stage, lock};
use fastrand::Rng;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Blocks a worker for a while, announced or not, and sometimes panics.
pub(super) struct Sleeper {
    stage: Arc<Stage>,
    random: Mutex<Rng>,
    _player: Player,
}

/// What a handler of the soak panics with.
pub(in crate::soak) const PANIC: &str = "a handler of the soak panics";

impl Sleeper {
    pub(super) fn enter(stage: &Arc<Stage>) {
        let random = Mutex::new(stage.random());
        let sleeper = Arc::new(Sleeper { stage: stage.clone(), random, _player: stage.player() });
        stage.post(0, sleeper, 0);
    }
}

impl Actor for Sleeper {
    fn took(self: Arc<Self>, _step: u8, event: Event) {
        let stage = self.stage.clone();
        if matches!(event, Event::Elapsed { .. }) {
            return stage.post(0, self, 0);
        }
        let (time, announced, panics) = {
            let mut random = lock(&self.random);
            (Duration::from_micros(random.u64(..3000)), random.bool(), random.u8(..) == 0)
        };
        let sleep = || std::thread::sleep(time);
        if announced {
            wharf::blocking(sleep)
        } else {
            sleep()
        }
        if !stage.is_stopping() {
            stage.timer(Duration::from_millis(5), self, 0);
        }
        if panics {
            std::panic::panic_any(PANIC);
        }
    }
}
