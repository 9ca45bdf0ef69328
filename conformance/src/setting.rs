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
    /// Where a thread that is inside `get` does the I/O: on every engine but the kernel's own port.
    Readiness,
    With(Wake),
    On(Engine),
}

impl Where {
    pub fn is(self, setting: Setting) -> bool {
        match self {
            Where::Readiness => setting.engine != Engine::Iocp,
            Where::With(wake) => wake == setting.wake,
            Where::On(engine) => engine == setting.engine,
        }
    }

    pub fn name(self) -> String {
        match self {
            Where::Readiness => "Linux, other Unixes".into(),
            Where::On(engine) => engine.name().into(),
            Where::With(wake) => format!("`Wake::{wake:?}`"),
        }
    }
}
