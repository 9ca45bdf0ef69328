//! Linux.

use super::scarce::Scarce;
use crate::address::UNIX;
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use std::fs::{self, FileType, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use wharf::signal::{SIGHUP, SIGINT, SIGTERM};
use wharf_session::{InheritedSocket, Service, Session};

/// What asks a server or a copy to end.
pub const ENDING: [i32; 3] = [SIGHUP, SIGINT, SIGTERM];
/// What asks a row of tests to end.
pub const ENDING_TESTS: [i32; 3] = [SIGHUP, SIGINT, SIGTERM];

/// Whether the program was started so that a hangup does nothing to it, as by `nohup`. That stays so. Who asks for an
/// end by name gets it: a script's shell ignores SIGINT in what it starts in the background.
pub fn stays_ignored(signal: i32) -> bool {
    signal == SIGHUP && is_ignored(signal)
}

fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Whether there are engines to choose from.
pub const CHOOSES_ENGINES: bool = true;

/// What to do where a process may open no more.
pub const RAISE_LIMIT: &str = "raise the limit (ulimit -n)";
/// What to do where the whole system can open no more.
pub const RAISE_SYSTEMS: &str = "the whole system has too many open files; `wharf doctor` tells the limit";

pub fn scarce(error: &io::Error) -> Option<Scarce> {
    match Errno::from_io_error(error)? {
        Errno::MFILE => Some(Scarce::Here),
        Errno::NFILE => Some(Scarce::Everywhere),
        _ => None,
    }
}

// --- Sockets that the program was started with ---

/// Listens on one that is none of TCP's, and tells its name.
pub fn adopt<S: Session>(
    service: &Service,
    socket: InheritedSocket,
    session: impl Fn() -> S + Send + Sync + 'static,
) -> io::Result<String> {
    let InheritedSocket::Local(listener) = socket else {
        return Err(io::Error::other(format!("{socket:?} is not known here")));
    };
    let place = listener.local_addr().map_or_else(|_| UNIX.to_owned(), |address| name(&address));
    service.adopt_local_listener(listener, move |_| session()).map(|()| place)
}

fn name(address: &std::os::unix::net::SocketAddr) -> String {
    use std::os::linux::net::SocketAddrExt;
    match (address.as_pathname(), address.as_abstract_name()) {
        (Some(path), _) => format!("{UNIX}{}", path.display()),
        (_, Some(name)) => format!("{UNIX}@{}", name.escape_ascii()),
        _ => UNIX.to_owned(),
    }
}

// --- Files ---

/// What to do where no temporary file can be made.
pub const CHOOSE_TEMPORARY: &str = "set TMPDIR to a directory that can be written to";

/// What to do about an error of a path that std has no word for.
pub fn remedy(error: &io::Error) -> Option<&'static str> {
    match Errno::from_io_error(error)? {
        Errno::MFILE => Some("give a smaller --depth, or raise the limit with `ulimit -n`"),
        Errno::LOOP => Some("a link leads back to itself; remove it"),
        _ => None,
    }
}

/// Which file it is, whatever it is called.
#[derive(PartialEq, Eq)]
pub struct Identity(u64, u64);

/// Of an open file.
pub fn identity(file: &fs::File) -> io::Result<Identity> {
    file.metadata().map(|about| Identity(about.dev(), about.ino()))
}

/// Of what a path leads to.
pub fn identity_of(path: &Path) -> io::Result<Identity> {
    fs::metadata(path).map(|about| Identity(about.dev(), about.ino()))
}

/// The bits that a copy keeps: who may do what, and that a directory's names are their owners' (the sticky bit).
const KEPT: u32 = 0o1777;

/// What a copy gets when it is finished.
pub fn kept(of: &Permissions) -> Permissions {
    Permissions::from_mode(of.mode() & KEPT)
}

/// The same, and the owner may write to it: what a file has while it is made.
pub fn writable(kept: &Permissions) -> Permissions {
    Permissions::from_mode(kept.mode() | 0o600)
}

/// What a directory has while it is filled.
pub fn enterable(kept: &Permissions) -> Permissions {
    Permissions::from_mode(kept.mode() | 0o700)
}

/// A file that is made with these permissions, if it is not there.
pub fn make_with<'a>(options: &'a mut OpenOptions, permissions: &Permissions) -> &'a mut OpenOptions {
    options.mode(permissions.mode())
}

pub fn make_directory(path: &Path, permissions: &Permissions) -> io::Result<()> {
    fs::DirBuilder::new().mode(permissions.mode()).create(path)
}

/// What has no content to copy.
pub fn special(kind: FileType) -> Option<&'static str> {
    match kind {
        kind if kind.is_fifo() => Some("a pipe"),
        kind if kind.is_socket() => Some("a socket"),
        kind if kind.is_char_device() => Some("a character device"),
        _ => None,
    }
}

/// Whether a file takes less room than it has bytes.
pub fn has_holes(about: &fs::Metadata) -> bool {
    about.is_file() && about.blocks() > 0 && about.blocks() * 512 < about.len()
        || about.is_file() && about.blocks() == 0 && about.blksize() > 0 && about.len() > about.blksize()
}

/// From where on there is no hole any more; `None`: to the end there is nothing else.
pub fn data_from(file: &fs::File, offset: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(offset)) {
        Ok(data) => Ok(Some(data)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Has a file opened for going around the cache.
pub fn around_cache(options: &mut OpenOptions) -> &mut OpenOptions {
    options.custom_flags(rustix::fs::OFlags::DIRECT.bits().cast_signed())
}

/// A directory, to have its names synced.
pub fn directory(path: &Path) -> io::Result<Option<fs::File>> {
    fs::File::open(path).map(Some)
}

/// What is to be known of a comparison with what was synced just now.
pub const CACHE_STAYS: Option<&str> = None;

/// Has the disk asked for what was synced. A hint: what is not dropped is read from the cache.
pub fn drop_from_cache(file: &fs::File) {
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
}

// --- Time ---

/// Milliseconds of a clock that never goes back, to the tick of the kernel.
pub fn coarse_ms() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Seconds since 1970, to the tick of the kernel.
pub fn coarse_seconds() -> i64 {
    clock_gettime(ClockId::RealtimeCoarse).tv_sec
}

// --- The terminal ---

/// How the terminal takes what is typed.
pub struct TerminalMode(rustix::termios::Termios);

impl TerminalMode {
    /// As it is now; `None` where there is no terminal.
    pub fn now() -> Option<TerminalMode> {
        rustix::termios::tcgetattr(io::stdin()).ok().map(TerminalMode)
    }

    /// As it was then. Pasting is not marked any more either.
    pub fn restore(self) {
        let _ = write!(io::stdout(), "\x1b[?2004l").and_then(|()| io::stdout().flush());
        let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, &self.0);
    }
}

// --- Processes ---

/// Prepares a program that is to go on in the background.
pub fn background(command: &mut Command) -> &mut Command {
    command
}

/// Leaves the session of whoever started it, in the background.
pub fn own_session() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// Lets go of the standard error, so that whoever reads it hears its end.
pub fn leave_stderr() {
    if let Ok(null) = fs::File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}
