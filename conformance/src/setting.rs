//! What a row runs on: an engine, and the policy by which a port wakes further threads.

use wharf::{FileEngine, SocketEngine, Wake};

/// What drives the ports under test. A system has some of them.
#[allow(dead_code)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// epoll, and the file thread with io_uring for files.
    Ring,
    /// epoll, and a pool of threads for files.
    Threads,
    /// poll, and a pool of threads for files: what every Unix has.
    Poll,
    /// The kernel's own port, for everything.
    Iocp,
    /// Sockets in memory, with faults (`crates/wharf/src/testing/fake.rs`); files as everywhere.
    Fake,
    /// What the library chooses: for hostile surroundings, where the choice is what is tested.
    Auto,
}

impl Engine {
    /// Those that the system has.
    #[cfg(unix)]
    pub const ALL: &[Engine] = if cfg!(target_os = "linux") {
        &[Engine::Ring, Engine::Threads, Engine::Poll, Engine::Fake]
    } else {
        &[Engine::Poll, Engine::Fake]
    };
    #[cfg(windows)]
    pub const ALL: &[Engine] = &[Engine::Iocp];

    pub fn name(self) -> &'static str {
        match self {
            Engine::Ring => "epoll+io_uring",
            Engine::Threads => "epoll+threads",
            Engine::Poll => "poll+threads",
            Engine::Iocp => "iocp",
            Engine::Fake => "fake",
            Engine::Auto => "auto",
        }
    }

    /// What a port has to say of itself once a file operation had to wait; `None` where either will do.
    pub fn files(self) -> Option<&'static str> {
        match self {
            Engine::Ring => Some("io_uring"),
            Engine::Threads | Engine::Poll | Engine::Fake => Some("threads"),
            Engine::Auto => crate::hostile::files(),
            Engine::Iocp => None,
        }
    }

    pub fn file_engine(self) -> FileEngine {
        match self {
            Engine::Ring => FileEngine::Ring,
            Engine::Threads | Engine::Poll | Engine::Fake => FileEngine::Threads,
            Engine::Iocp => FileEngine::Auto,
            Engine::Auto => FileEngine::Auto,
        }
    }

    pub fn socket_engine(self) -> SocketEngine {
        match self {
            // The fake network makes its own.
            Engine::Ring | Engine::Threads | Engine::Auto | Engine::Iocp | Engine::Fake => SocketEngine::Auto,
            Engine::Poll => SocketEngine::Poll,
        }
    }

    /// What a port says of its sockets.
    pub fn sockets(self) -> &'static str {
        match self {
            Engine::Auto if cfg!(all(unix, not(target_os = "linux"))) => "poll",
            Engine::Ring | Engine::Threads | Engine::Auto => "epoll",
            Engine::Poll => "poll",
            Engine::Iocp => "iocp",
            Engine::Fake => "fake",
        }
    }
}

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
