//! What the rows need of the system, and std calls by another name on each.

use wharf::raw::Handle;

/// A child that hangs ends by itself after so long.
const CHILD_SECONDS_MAX: u32 = 60;

#[cfg(unix)]
mod here {
    use super::*;
    use std::os::fd::{AsRawFd, OwnedFd};

    pub fn raw_of(it: &impl AsRawFd) -> Handle {
        it.as_raw_fd()
    }

    /// Nobody has it: the highest that the system gives is far below.
    pub const NO_HANDLE: Handle = i32::MAX;

    /// A descriptor, whatever it is of.
    pub fn whatever(file: std::fs::File) -> OwnedFd {
        file.into()
    }

    pub fn past_the_cache(options: &mut std::fs::OpenOptions) {
        crate::system::direct(options);
    }

    /// So that what is opened can complete into a port, which needs nothing here.
    pub fn for_ports(options: &mut std::fs::OpenOptions) -> &mut std::fs::OpenOptions {
        options
    }

    #[allow(unsafe_code)]
    pub fn alarm() {
        // SAFETY: only sets this process's alarm, which ends it should it hang.
        unsafe { libc::alarm(CHILD_SECONDS_MAX) };
    }
}

#[cfg(windows)]
mod here {
    use super::*;
    use std::os::windows::fs::OpenOptionsExt;
    use std::os::windows::io::{AsRawHandle, AsRawSocket, OwnedHandle};

    pub trait AsRaw {
        fn as_raw(&self) -> Handle;
    }

    impl AsRaw for std::net::TcpStream {
        fn as_raw(&self) -> Handle {
            self.as_raw_socket()
        }
    }

    impl AsRaw for std::fs::File {
        fn as_raw(&self) -> Handle {
            self.as_raw_handle().expose_provenance() as Handle
        }
    }

    pub fn raw_of(it: &impl AsRaw) -> Handle {
        it.as_raw()
    }

    /// Nobody has it.
    pub const NO_HANDLE: Handle = 0x7FFF_FFF0;

    /// A handle, whatever it is of.
    pub fn whatever(file: std::fs::File) -> OwnedHandle {
        file.into()
    }

    /// So that what is opened can complete into a port.
    pub fn for_ports(options: &mut std::fs::OpenOptions) -> &mut std::fs::OpenOptions {
        const FILE_FLAG_OVERLAPPED: u32 = 0x4000_0000;
        options.custom_flags(FILE_FLAG_OVERLAPPED)
    }

    pub fn past_the_cache(options: &mut std::fs::OpenOptions) {
        const FILE_FLAG_NO_BUFFERING: u32 = 0x2000_0000;
        options.custom_flags(FILE_FLAG_NO_BUFFERING);
    }

    pub fn alarm() {
        std::thread::spawn(|| {
            std::thread::sleep(std::time::Duration::from_secs(CHILD_SECONDS_MAX.into()));
            std::process::exit(142);
        });
    }
}

pub use here::*;
