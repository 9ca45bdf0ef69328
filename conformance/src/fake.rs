//! Rows that the fake engine does not run, and why: what they are about is not of its network, so that to run them
//! there would say nothing. All others that have a test run on it as on the real engines.

const FILES: &str = "files go past an engine of sockets, to the file thread, which is the same under each";
const PIPES: &str = "pipes: it has sockets only";
const OPTIONS: &str = "options of a socket, which are the kernel's: it names its sockets by real ones";

/// Row, and why not.
pub const NOT_THERE: &[(&str, &str)] = &[
    ("P-13", "duplicates of a descriptor, which are the kernel's"),
    ("P-15", "duplicates of a descriptor, which are the kernel's"),
    ("P-11", "what can be associated: the system's kinds of descriptors"),
    ("O-24", OPTIONS),
    ("O-25", OPTIONS),
    ("O-32", FILES),
    ("R-18", "a time-out of the system's own"),
    ("S-14", "signals: it sends without a system call that raises any"),
    ("A-25", OPTIONS),
    ("A-30", OPTIONS),
    ("N-06", "a time-out of the system's own, and its ways through networks"),
    ("F-01", FILES),
    ("F-02", FILES),
    ("F-03", FILES),
    ("F-04", FILES),
    ("F-05", FILES),
    ("F-06", FILES),
    ("F-07", FILES),
    ("F-08", FILES),
    ("F-09", FILES),
    ("F-10", FILES),
    ("F-11", FILES),
    ("F-13", FILES),
    ("F-15", FILES),
    ("Q-01", "Unix sockets: its network has those of the Internet"),
    ("Q-05", PIPES),
    ("Q-07", PIPES),
    ("Q-08", PIPES),
    ("K-19", PIPES),
];

/// Why a row does not run on it.
pub fn why_not(id: &str) -> Option<&'static str> {
    NOT_THERE.iter().find(|(row, _)| *row == id).map(|(_, why)| *why)
}
