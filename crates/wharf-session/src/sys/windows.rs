//! Windows. It has no Unix sockets that complete into a port, and no sockets that a program is started with.

/// The system's coarse clock in milliseconds: it moves about 64 times a second.
#[allow(unsafe_code)]
pub(crate) fn coarse_ms() -> u64 {
    // SAFETY: a function without arguments.
    unsafe { windows_sys::Win32::System::SystemInformation::GetTickCount64() }
}
