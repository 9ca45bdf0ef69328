//! Any other Unix: what only Linux has is not tried.

use super::Call;
use std::fs::OpenOptions;
use std::io;

pub fn direct(_options: &mut OpenOptions) {}

pub fn memory() -> Option<rustix::fd::OwnedFd> {
    None
}

pub fn terminal() -> Option<(rustix::fd::OwnedFd, std::fs::File)> {
    None
}

pub fn has_connections(_port: u16) -> Option<bool> {
    None
}

/// The most that was resident so far, which does not fall, and grows as what is resident does.
#[allow(unsafe_code)]
pub fn resident() -> io::Result<usize> {
    // SAFETY: zeros are a value of this plain structure, which is ours to be written.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        if libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) != 0 {
            return Err(io::Error::last_os_error());
        }
        usage
    };
    // In bytes on macOS, in KiB elsewhere.
    let unit = if cfg!(target_vendor = "apple") { 1 } else { 1024 };
    Ok(usize::try_from(usage.ru_maxrss).unwrap_or(0) * unit)
}

pub fn deafen(_socket: &std::net::TcpStream) -> bool {
    false
}

fn not_here<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "only Linux has it"))
}

pub fn lose_privilege() -> io::Result<()> {
    not_here()
}

pub fn refuse(_call: Call, _error: i32) -> io::Result<()> {
    not_here()
}

/// A connect of the socket gives up after three seconds.
#[allow(unsafe_code)]
pub fn give_up_soon(handle: i32) {
    let seconds: libc::c_int = 3;
    #[cfg(target_vendor = "apple")]
    const OPTION: libc::c_int = 0x20; // TCP_CONNECTIONTIMEOUT
    #[cfg(not(target_vendor = "apple"))]
    const OPTION: libc::c_int = 128; // TCP_KEEPINIT
    // SAFETY: the descriptor is the caller's, which is open; the value is an int that lives for the length of the call.
    let set = unsafe {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        libc::setsockopt(handle, libc::IPPROTO_TCP, OPTION, (&raw const seconds).cast(), length)
    };
    assert_eq!(set, 0);
}
