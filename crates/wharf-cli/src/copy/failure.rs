//! Why a copy ended early, and what to do about it.

use crate::system;
use std::io;
use std::path::Path;

/// Why a copy ended early, or why a tree was not copied whole.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) sentence: String,
    /// Something was copied, and `--resume` can go on from there.
    pub(super) resumable: bool,
    pub(super) weight: Weight,
}

/// What it means for the rest of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// The rest can be copied.
    Leaves,
    /// Nothing more can be opened before something else is closed.
    Scarce,
    /// Nothing more can be copied.
    Ends,
}

impl From<String> for Failure {
    fn from(sentence: String) -> Failure {
        Failure { sentence, resumable: false, weight: Weight::Leaves }
    }
}

impl Failure {
    /// The system's error about a path. `inside`: of a tree, in which something was copied before.
    pub(super) fn of(verb: &str, path: &Path, error: &io::Error, inside: bool) -> Failure {
        Failure { sentence: cannot(verb, path, error), resumable: inside, weight: weight(error) }
    }
}

/// What an error means for the rest of a tree.
pub(super) fn weight(error: &io::Error) -> Weight {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem => Weight::Ends,
        _ if system::scarce(error).is_some() => Weight::Scarce,
        _ => Weight::Leaves,
    }
}

/// A system's error about a path, with what to do about it.
pub(super) fn cannot(verb: &str, path: &Path, error: &io::Error) -> String {
    let remedy = system::remedy(error).unwrap_or(match error.kind() {
        io::ErrorKind::NotFound => "check the name, and make the directory it is in",
        io::ErrorKind::PermissionDenied => "ask its owner for permission, or copy as another user",
        io::ErrorKind::AlreadyExists => "--force overwrites it, --resume continues it",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room there",
        io::ErrorKind::IsADirectory => "name a file, or remove the directory",
        io::ErrorKind::WouldBlock => "it has nothing to read now",
        io::ErrorKind::NotADirectory => "a part of the path is a file; check the name",
        io::ErrorKind::ReadOnlyFilesystem => "mount it for writing, or choose another target",
        io::ErrorKind::FileTooLarge => "its file system holds no file of that size; choose another target",
        _ => "look at the disk and its file system",
    });
    format!("cannot {verb} {}: {error}; {remedy}", path.display())
}
