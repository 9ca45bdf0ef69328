//! Why a copy ended early, and what to do about it.

use crate::system;
use std::io;
use std::path::Path;

/// Why a copy ended early.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) sentence: String,
    /// Something was copied, and `--resume` can go on from there.
    pub(super) resumable: bool,
}

impl From<String> for Failure {
    fn from(sentence: String) -> Failure {
        Failure { sentence, resumable: false }
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
        io::ErrorKind::NotADirectory => "a part of the path is a file; check the name",
        io::ErrorKind::ReadOnlyFilesystem => "mount it for writing, or choose another target",
        io::ErrorKind::FileTooLarge => "its file system holds no file of that size; choose another target",
        _ => "look at the disk and its file system",
    });
    format!("cannot {verb} {}: {error}; {remedy}", path.display())
}
