//! Windows' numbers for errors, which are told to peers as the numbers that iperf3 has everywhere, Linux's.

use std::io;
use windows_sys::Win32::Foundation as base;
use windows_sys::Win32::Networking::WinSock as ws;

/// Linux's numbers, those of Win32 and Winsock for the same, and what they say.
const NUMBERS: [(i32, &[u32], &str); 17] = [
    (2, &[base::ERROR_FILE_NOT_FOUND, base::ERROR_PATH_NOT_FOUND], "no such file or directory"),
    (13, &[base::ERROR_ACCESS_DENIED, ws::WSAEACCES as u32], "permission denied"),
    (22, &[base::ERROR_INVALID_PARAMETER, ws::WSAEINVAL as u32], "invalid argument"),
    (24, &[base::ERROR_TOO_MANY_OPEN_FILES, ws::WSAEMFILE as u32], "too many open files"),
    (28, &[base::ERROR_DISK_FULL], "no space left on the device"),
    (32, &[base::ERROR_BROKEN_PIPE], "broken pipe"),
    (90, &[ws::WSAEMSGSIZE as u32], "message too long"),
    (92, &[ws::WSAENOPROTOOPT as u32], "protocol option not available"),
    (95, &[base::ERROR_NOT_SUPPORTED, ws::WSAEOPNOTSUPP as u32], "operation not supported"),
    (98, &[ws::WSAEADDRINUSE as u32], "address already in use"),
    (99, &[ws::WSAEADDRNOTAVAIL as u32], "address not available"),
    (101, &[ws::WSAENETUNREACH as u32], "network unreachable"),
    (103, &[ws::WSAECONNABORTED as u32], "connection aborted"),
    (104, &[ws::WSAECONNRESET as u32, base::ERROR_NETNAME_DELETED], "connection reset by peer"),
    (105, &[ws::WSAENOBUFS as u32], "no buffer space"),
    (110, &[ws::WSAETIMEDOUT as u32, base::ERROR_SEM_TIMEOUT], "connection timed out"),
    (111, &[ws::WSAECONNREFUSED as u32, base::ERROR_CONNECTION_REFUSED], "connection refused"),
];

/// What a peer's error number says.
pub(crate) fn text(errno: i32) -> String {
    let known = NUMBERS.iter().find(|(number, ..)| *number == errno);
    known.map_or_else(|| errno.to_string(), |(.., text)| format!("{text} ({errno})"))
}

/// This system's error number, as peers understand it.
pub(crate) fn number(error: &io::Error) -> i32 {
    let ours = error.raw_os_error().unwrap_or(0).cast_unsigned();
    let known = NUMBERS.iter().find(|(_, numbers, _)| numbers.contains(&ours));
    known.map_or(ours.cast_signed(), |(errno, ..)| *errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_errors_are_told_as_peers_know_them() {
        let told = |ours: i32| number(&io::Error::from_raw_os_error(ours));
        assert_eq!(told(ws::WSAECONNREFUSED), 111);
        assert_eq!(told(ws::WSAECONNRESET), 104);
        assert_eq!(told(2), 2);
        assert_eq!(text(104), "connection reset by peer (104)");
        assert_eq!(text(7777), "7777");
    }
}
