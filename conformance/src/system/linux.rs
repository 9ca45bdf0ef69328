//! Linux.

use super::Call;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;

/// Past the cache, if the file system offers it.
pub fn direct(options: &mut OpenOptions) {
    options.custom_flags(libc::O_DIRECT);
}

/// A descriptor of plain memory, where there are such.
pub fn memory() -> Option<rustix::fd::OwnedFd> {
    Some(rustix::fs::memfd_create("conformance", rustix::fs::MemfdFlags::CLOEXEC).unwrap())
}

/// Whether a connection that a listener on this port of 127.0.0.1 took, or would have taken, is still open at this end.
pub fn has_connections(port: u16) -> Option<bool> {
    /// `TCP_ESTABLISHED`.
    const ESTABLISHED: &str = "01";
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!("0100007F:{port:04X}");
    let open = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        (words.next(), words.nth(1)) == (Some(&local), Some(ESTABLISHED))
    };
    Some(table.lines().any(open))
}

/// Resident bytes.
pub fn resident() -> io::Result<usize> {
    let pages: usize = std::fs::read_to_string("/proc/self/statm")?
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .ok_or_else(|| io::Error::other("/proc/self/statm has no second number"))?;
    Ok(pages * rustix::param::page_size())
}

/// From now on the socket hears nothing any more: a filter drops what comes, before TCP sees it. False where that
/// cannot be had.
#[allow(unsafe_code)]
pub fn deafen(socket: &std::net::TcpStream) -> bool {
    use std::os::fd::AsRawFd;
    // "Keep 0 bytes."
    let mut filter = libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut filter };
    let (value, length) = ((&raw const program).cast(), size_of_val(&program) as libc::socklen_t);
    // SAFETY: the program and its one step live here, and are as long as said.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, value, length) };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
    true
}

/// Whoever may lock memory without limit (CAP_IPC_LOCK) would not notice the limit.
pub fn lose_privilege() -> io::Result<()> {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let mut own = capabilities(None)?;
    own.effective.remove(CapabilitySet::IPC_LOCK);
    own.permitted.remove(CapabilitySet::IPC_LOCK);
    own.inheritable.remove(CapabilitySet::IPC_LOCK);
    Ok(set_capabilities(None, own)?)
}

/// Installs a filter, as a container's runtime does, under which the call fails with this number.
#[allow(unsafe_code)]
pub fn refuse(call: Call, error: i32) -> io::Result<()> {
    let number = match call {
        Call::Setup => libc::SYS_io_uring_setup,
        Call::Enter => libc::SYS_io_uring_enter,
        Call::Register => libc::SYS_io_uring_register,
    };
    let word = |value: u32| u16::try_from(value).expect("codes are small");
    let step = |code: u32, value: u32| libc::sock_filter { code: word(code), jt: 0, jf: 0, k: value };
    let refused = libc::SECCOMP_RET_ERRNO | (error.cast_unsigned() & libc::SECCOMP_RET_DATA);
    let mut filter = [
        // The number is the first word of what a filter is shown.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter {
            code: word(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K),
            jt: 0,
            jf: 1,
            k: u32::try_from(number).expect("numbers of system calls are small"),
        },
        step(libc::BPF_RET | libc::BPF_K, refused),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: word(filter.len() as u32), filter: filter.as_mut_ptr() };
    // SAFETY: the first call takes a number; the second reads the filter, which lives here, for its own length.
    let installed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if installed { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A connect of the socket gives up after one repetition.
#[allow(unsafe_code)]
pub fn give_up_soon(handle: i32) {
    let once: libc::c_int = 1;
    // SAFETY: the descriptor is the caller's, which is open; the value is an int that lives for the length of the call.
    let set = unsafe {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        libc::setsockopt(handle, libc::IPPROTO_TCP, libc::TCP_SYNCNT, (&raw const once).cast(), length)
    };
    assert_eq!(set, 0);
}

/// A terminal that passes on what it is given, and its other side.
#[allow(unsafe_code)]
pub fn terminal() -> Option<(rustix::fd::OwnedFd, std::fs::File)> {
    use std::os::fd::AsRawFd;
    let master = OpenOptions::new().read(true).write(true).open("/dev/ptmx").ok()?;
    let (unlocked, mut number): (libc::c_int, libc::c_int) = (0, 0);
    // SAFETY: the descriptor is open, and both places are ints that live for the length of the calls.
    let known = unsafe {
        libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) == 0
            && libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) == 0
    };
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NOCTTY);
    let terminal = known.then(|| options.open(format!("/dev/pts/{number}")).ok())??;
    Some((terminal.into(), master))
}
