//! Windows.

use super::scarce::Scarce;
use std::fs::{self, FileType, OpenOptions, Permissions};
use std::io;
use std::os::windows::fs::OpenOptionsExt;
use std::os::windows::io::AsRawHandle;
use std::os::windows::process::CommandExt;
use std::path::Path;
use std::process::Command;
use wharf::signal::{SIGBREAK, SIGINT, SIGTERM};
use wharf_session::{InheritedSocket, Service, Session};
use windows_sys::Win32::Foundation as base;
use windows_sys::Win32::Networking::WinSock as ws;
use windows_sys::Win32::Storage::FileSystem as files;
use windows_sys::Win32::System::{Console as console, Threading as threads};

/// What asks a server or a copy to end: Ctrl+C, the end of the console or the session, Ctrl+Break.
pub const ENDING: [i32; 3] = [SIGINT, SIGTERM, SIGBREAK];
/// What asks a row of tests to end.
pub const ENDING_TESTS: [i32; 3] = ENDING;

/// Nothing is ignored on Windows.
pub fn stays_ignored(_: i32) -> bool {
    false
}

/// Whether there are engines to choose from: the kernel is the engine.
pub const CHOOSES_ENGINES: bool = false;

/// What to do where a process may open no more.
pub const RAISE_LIMIT: &str = "end other programs: Windows has no limit that could be raised";
/// What to do where the whole system can open no more.
pub const RAISE_SYSTEMS: &str = "the system's memory for handles and sockets is used up; end other programs";

pub fn scarce(error: &io::Error) -> Option<Scarce> {
    const SOCKETS: u32 = ws::WSAEMFILE as u32;
    const BUFFERS: u32 = ws::WSAENOBUFS as u32;
    match error.raw_os_error()?.cast_unsigned() {
        base::ERROR_TOO_MANY_OPEN_FILES | SOCKETS => Some(Scarce::Here),
        base::ERROR_NO_SYSTEM_RESOURCES | BUFFERS => Some(Scarce::Everywhere),
        _ => None,
    }
}

// --- Sockets that the program was started with ---

/// There is none but TCP's.
pub fn adopt<S: Session>(
    _: &Service,
    socket: InheritedSocket,
    _: impl Fn() -> S + Send + Sync + 'static,
) -> io::Result<String> {
    Err(io::Error::other(format!("{socket:?} is not known here")))
}

// --- Files ---

/// What to do where no temporary file can be made.
pub const CHOOSE_TEMPORARY: &str = "set TMP to a directory that can be written to";

/// What to do about an error of a path that std has no word for.
pub fn remedy(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error()?.cast_unsigned() {
        base::ERROR_SHARING_VIOLATION | base::ERROR_LOCK_VIOLATION => {
            Some("another program has it open for itself; close it there")
        }
        base::ERROR_PRIVILEGE_NOT_HELD => {
            Some("making links needs Windows' developer mode, or a console that runs as administrator")
        }
        base::ERROR_CANT_RESOLVE_FILENAME => Some("a link leads back to itself; remove it"),
        base::ERROR_TOO_MANY_OPEN_FILES => Some("give a smaller --depth"),
        base::ERROR_INVALID_NAME => Some("Windows has no such names; choose one without < > : \" | ? * in it"),
        _ => None,
    }
}

/// Which file it is, whatever it is called.
#[derive(PartialEq, Eq)]
pub struct Identity(u32, u32, u32);

/// Of an open file.
#[allow(unsafe_code)]
pub fn identity(file: &fs::File) -> io::Result<Identity> {
    // SAFETY: a structure of numbers, of which zeros are valid.
    let mut about: files::BY_HANDLE_FILE_INFORMATION = unsafe { std::mem::zeroed() };
    // SAFETY: the handle is open while it is borrowed, and the structure lives through the call.
    match unsafe { files::GetFileInformationByHandle(file.as_raw_handle(), &raw mut about) } {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(Identity(about.dwVolumeSerialNumber, about.nFileIndexHigh, about.nFileIndexLow)),
    }
}

/// Of what a path leads to.
pub fn identity_of(path: &Path) -> io::Result<Identity> {
    let mut options = OpenOptions::new();
    // For nothing but looking at it; the flag lets it be a directory.
    options.access_mode(files::FILE_READ_ATTRIBUTES).custom_flags(files::FILE_FLAG_BACKUP_SEMANTICS);
    identity(&options.open(path)?)
}

/// What a copy gets when it is finished: whether it is read-only. Windows' lists of who may do what are inherited from
/// the directory.
pub fn kept(of: &Permissions) -> Permissions {
    of.clone()
}

/// The same, and it may be written to: what a file has while it is made.
pub fn writable(kept: &Permissions) -> Permissions {
    let mut writable = kept.clone();
    #[allow(clippy::permissions_set_readonly_false)] // On Windows it says no more than that.
    writable.set_readonly(false);
    writable
}

/// What a directory has while it is filled.
pub fn enterable(kept: &Permissions) -> Permissions {
    writable(kept)
}

/// A file that is made with these permissions, if it is not there: it gets them when it is finished.
pub fn make_with<'a>(options: &'a mut OpenOptions, _: &Permissions) -> &'a mut OpenOptions {
    options
}

pub fn make_directory(path: &Path, _: &Permissions) -> io::Result<()> {
    fs::create_dir(path)
}

/// What has no content to copy: nothing that lies in a directory.
pub fn special(_: FileType) -> Option<&'static str> {
    None
}

/// Holes are copied as zeros.
pub fn has_holes(_: &fs::Metadata) -> bool {
    false
}

/// There is none to be skipped.
pub fn data_from(_: &fs::File, offset: u64) -> io::Result<Option<u64>> {
    Ok(Some(offset))
}

/// Has a file opened for going around the cache.
pub fn around_cache(options: &mut OpenOptions) -> &mut OpenOptions {
    options.custom_flags(files::FILE_FLAG_NO_BUFFERING)
}

/// A directory, to have its names synced: Windows has no such call, and writes a file's name with the file.
pub fn directory(_: &Path) -> io::Result<Option<fs::File>> {
    Ok(None)
}

/// What is to be known of a comparison with what was synced just now.
pub const CACHE_STAYS: Option<&str> =
    Some("--verify may compare what the cache has, which Windows does not drop; with --direct it is what the disk has");

/// Not on Windows.
pub fn drop_from_cache(_: &fs::File) {}

// --- Time ---

/// Milliseconds of a clock that never goes back. It moves about 64 times a second.
#[allow(unsafe_code)]
pub fn coarse_ms() -> u64 {
    // SAFETY: a function without arguments.
    unsafe { windows_sys::Win32::System::SystemInformation::GetTickCount64() }
}

/// Seconds since 1970.
pub fn coarse_seconds() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

// --- The terminal ---

/// How the console takes what is typed.
pub struct TerminalMode(console::CONSOLE_MODE);

#[allow(unsafe_code)]
impl TerminalMode {
    /// As it is now; `None` where there is no console.
    pub fn now() -> Option<TerminalMode> {
        let mut mode = 0;
        // SAFETY: the handle is the process's own, and the number lives through the call.
        let told = unsafe { console::GetConsoleMode(console::GetStdHandle(console::STD_INPUT_HANDLE), &raw mut mode) };
        (told != 0).then_some(TerminalMode(mode))
    }

    /// As it was then.
    pub fn restore(self) {
        // SAFETY: the handle is the process's own.
        unsafe { console::SetConsoleMode(console::GetStdHandle(console::STD_INPUT_HANDLE), self.0) };
    }
}

// --- Processes ---

/// Prepares a program that is to go on in the background: without a console, and out of reach of this one's Ctrl+C.
pub fn background(command: &mut Command) -> &mut Command {
    command.creation_flags(threads::DETACHED_PROCESS | threads::CREATE_NEW_PROCESS_GROUP)
}

/// It has one since it was started.
pub fn own_session() -> io::Result<()> {
    Ok(())
}

/// Lets go of the standard error, so that whoever reads it hears its end.
#[allow(unsafe_code)]
pub fn leave_stderr() {
    // SAFETY: from here on nobody finds the handle, because the process has none any more; before, std only borrowed it
    // for the time of a write, and the caller holds the lock for that.
    unsafe {
        let handle = console::GetStdHandle(console::STD_ERROR_HANDLE);
        console::SetStdHandle(console::STD_ERROR_HANDLE, std::ptr::null_mut());
        base::CloseHandle(handle);
    }
}
