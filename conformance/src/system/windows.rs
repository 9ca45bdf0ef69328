//! Windows: what the soak asks of it. The rows ask `kit/system.rs`.

use std::fs::OpenOptions;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::windows::fs::OpenOptionsExt;
use windows_sys::Win32::Storage::FileSystem::FILE_FLAG_NO_BUFFERING;
use windows_sys::Win32::System::LibraryLoader::{GetModuleHandleA, GetProcAddress};
use windows_sys::Win32::System::ProcessStatus::{GetProcessMemoryInfo, PROCESS_MEMORY_COUNTERS};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, GetProcessHandleCount};

/// One end of a pair of sockets.
pub type Socket = TcpStream;

/// Two sockets that are connected with each other: of TCP, since Unix sockets do not complete into a port here.
pub fn pair() -> io::Result<(Socket, Socket)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let own = TcpStream::connect(listener.local_addr()?)?;
    let (other, _) = listener.accept()?;
    own.set_nodelay(true)?;
    other.set_nodelay(true)?;
    Ok((own, other))
}

/// Past the cache.
pub fn direct(options: &mut OpenOptions) {
    options.custom_flags(FILE_FLAG_NO_BUFFERING);
}

pub fn has_connections(_port: u16) -> Option<bool> {
    None
}

/// Resident bytes.
#[allow(unsafe_code)]
pub fn resident() -> io::Result<usize> {
    let size = size_of::<PROCESS_MEMORY_COUNTERS>() as u32;
    // SAFETY: zeros are a value of this plain structure, which is as large as said and ours to be written.
    unsafe {
        let mut memory: PROCESS_MEMORY_COUNTERS = std::mem::zeroed();
        match GetProcessMemoryInfo(GetCurrentProcess(), &raw mut memory, size) {
            0 => Err(io::Error::last_os_error()),
            _ => Ok(memory.WorkingSetSize),
        }
    }
}

/// Handles that the process has open.
#[allow(unsafe_code)]
pub fn descriptors() -> io::Result<usize> {
    let mut count = 0;
    // SAFETY: the number lives through the call.
    match unsafe { GetProcessHandleCount(GetCurrentProcess(), &raw mut count) } {
        0 => Err(io::Error::last_os_error()),
        _ => Ok(count as usize),
    }
}

/// Whether this Windows is Wine, which exports a function of its own by which it can be known.
#[allow(unsafe_code)]
pub fn is_wine() -> bool {
    // SAFETY: both names end with a zero; the module is one that every process has, and is not let go of.
    unsafe {
        let module = GetModuleHandleA(c"ntdll.dll".as_ptr().cast());
        !module.is_null() && GetProcAddress(module, c"wine_get_version".as_ptr().cast()).is_some()
    }
}
