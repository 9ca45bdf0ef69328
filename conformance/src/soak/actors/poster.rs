//! Posts and pauses.

use crate::soak::stage::{Actor, Event, Player, Stage};
use std::sync::Arc;
use std::time::Duration;

/// Posts in a row, with a pause.
pub(super) struct Poster {
    stage: Arc<Stage>,
    _player: Player,
}

const POSTS: u8 = 64;

impl Poster {
    pub(super) fn enter(stage: &Arc<Stage>) {
        let poster = Arc::new(Poster { stage: stage.clone(), _player: stage.player() });
        stage.post(0, poster, 0);
    }
}

impl Actor for Poster {
    fn took(self: Arc<Self>, step: u8, event: Event) {
        let stage = self.stage.clone();
        match event {
            Event::Posted { bytes } => {
                stage.check(bytes == usize::from(step), "a post does not bring what was posted");
                if step < POSTS {
                    stage.post(usize::from(step) + 1, self, step + 1);
                } else if !stage.is_stopping() {
                    stage.timer(Duration::from_millis(1), self, 0);
                }
            }
            Event::Elapsed { result: Ok(1) } => stage.post(0, self, 0),
            other => stage.fault(format!("a post or a pause: {other:?}")),
        }
    }
}
