//! What is fuzzed: each target is a plain function of some bytes that panics when a rule is broken. `tests/fuzz.rs`
//! calls them in `cargo test`, the programs in `fuzz_targets/` under libfuzzer.
//!
//! Nothing of it is there when the queue is modelled: most of the crate is left out then.

#![cfg(not(loom))]

use std::io;
use wharf::error::{Class, ErrorExt, NtStatus, io_error, nt_status, win32, winsock, winsock_from_errno};

const CLASSES: [Class; 6] = [Class::Stream, Class::Connect, Class::Datagram, Class::File, Class::Pipe, Class::Any];

/// Takes the first bytes of an input as parameters; what is missing is 0.
fn parameters<const N: usize>(data: &[u8]) -> ([u8; N], &[u8]) {
    let mut taken = [0; N];
    let count = data.len().min(N);
    taken[..count].copy_from_slice(&data[..count]);
    (taken, &data[count..])
}

/// The tables of errors: four bytes each are an errno and a status. A few in one input are enough: they know nothing of
/// each other.
pub fn errors(data: &[u8]) {
    for four in data.chunks(4).take(4) {
        let (number, _) = parameters::<4>(four);
        errno(i32::from_le_bytes(number));
        status(NtStatus(u32::from_le_bytes(number)));
    }
}

/// What holds for every errno.
pub fn errno(errno: i32) {
    let error = io_error(errno);
    assert_eq!(error.raw_os_error(), Some(errno), "the system's number is kept");
    assert_eq!(winsock_from_errno(errno) == 0, errno == 0, "errno {errno} is passed off as a success");
    assert_eq!(error.win32(Class::Any), win32(error.nt_status(Class::Any)));
    assert_ne!(error.winsock(), 0, "an error with the number {errno} is one");
    let mut last = None;
    for class in CLASSES {
        let found = nt_status(errno, class);
        if last.replace(found) == Some(found) {
            // Nearly always: the classes differ in a few numbers.
            continue;
        }
        assert_eq!(found == NtStatus::SUCCESS, errno == 0, "errno {errno} of {class:?}");
        // A number that the table does not have is kept inside, where there is room for it.
        match found.unmapped_errno() {
            Some(inside) => assert_eq!((inside, found.name()), (errno, None)),
            None => {
                let unknown = found == NtStatus::UNMAPPED;
                assert!(!unknown || !(1..=0xFFFF).contains(&errno), "errno {errno} of {class:?} is lost");
            }
        }
        if errno != 0 {
            assert!(found.is_error() || found.is_warning(), "errno {errno} of {class:?} is {found}");
            // Elsewhere an error's numbers are others.
            assert!(!cfg!(unix) || error.nt_status(class) == found, "errno {errno} of {class:?}");
            assert!(win32(found) != 0 && winsock(found) != 0, "errno {errno} of {class:?}");
            assert_ne!(win32(found), 38, "errno {errno} of {class:?} is passed off as the end of a file");
        }
    }
}

/// What holds for every status.
pub fn status(status: NtStatus) {
    assert_eq!(win32(status) == 0, status == NtStatus::SUCCESS, "{status}");
    assert_eq!(winsock(status) == 0, status == NtStatus::SUCCESS, "{status}");
    let severities = [status.is_success(), status.is_warning(), status.is_error()];
    assert_eq!(severities.iter().filter(|&&is| is).count(), 1, "{status}");
    assert!(format!("{status}").contains(&format!("0x{:08X}", status.0)));
    // An error of that kind without a system's number says no success either.
    let kind = status.kind();
    let of_kind = io::Error::from(kind).nt_status(Class::Any);
    assert!(!of_kind.is_success(), "{status}: {kind:?} is {of_kind}");
}
