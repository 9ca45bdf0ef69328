//! What a row runs on: an engine, and the policy by which a port wakes further threads.

use crate::kit::Engine;
use wharf::Wake;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    pub engine: Engine,
    pub wake: Wake,
}

/// Both policies: that of Windows, and the library's own, which is the default.
pub const WAKES: [Wake; 2] = [Wake::Eager, Wake::Adaptive];

pub fn wake_name(wake: Wake) -> &'static str {
    match wake {
        Wake::Eager => "eager",
        Wake::Adaptive => "adaptive",
    }
}

impl Setting {
    pub fn name(self) -> String {
        format!("{} {}", self.engine.name(), wake_name(self.wake))
    }
}

/// Where a difference is found that is not found everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    #[allow(dead_code)]
    On(Engine),
    With(Wake),
}

impl Where {
    pub fn is(self, setting: Setting) -> bool {
        match self {
            Where::On(engine) => engine == setting.engine,
            Where::With(wake) => wake == setting.wake,
        }
    }

    pub fn name(self) -> String {
        match self {
            Where::On(engine) => engine.name().into(),
            Where::With(wake) => format!("`Wake::{wake:?}`"),
        }
    }
}
