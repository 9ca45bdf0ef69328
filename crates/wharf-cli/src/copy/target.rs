//! Where a copy goes, and where it must not go.

use super::failure::cannot;
use std::fs;
use std::path::{Path, PathBuf, is_separator};

/// In a directory a file keeps its name.
pub(super) fn target_of(source: &Path, target: &Path) -> Result<PathBuf, String> {
    if !target.is_dir() {
        if target.as_os_str().as_encoded_bytes().last().is_some_and(|&byte| is_separator(char::from(byte))) {
            let target = target.display();
            return Err(format!("{target} is no directory; make it, or leave the slash at its end out"));
        }
        return Ok(target.to_owned());
    }
    let name = source.file_name().map(ToOwned::to_owned);
    // `..` and the like have none; as a file they have.
    let name = name.or_else(|| fs::canonicalize(source).ok()?.file_name().map(ToOwned::to_owned));
    name.map(|name| target.join(name)).ok_or_else(|| format!("{} has no name; name the target", source.display()))
}

/// A tree that is copied into itself has no end.
pub(super) fn refuse_inside(source: &Path, target: &Path) -> Result<(), String> {
    let real = fs::canonicalize(source).map_err(|error| cannot("read", source, &error))?;
    let absolute = std::path::absolute(target).map_err(|error| cannot("write", target, &error))?;
    let existing = absolute.ancestors().find_map(|path| fs::canonicalize(path).ok());
    match existing {
        Some(existing) if existing == real && fs::canonicalize(target).is_ok() => {
            Err(format!("{} and {} are the same directory; choose another target", source.display(), target.display()))
        }
        Some(existing) if existing.starts_with(&real) => {
            Err(format!("{} is inside of {}; choose a target elsewhere", target.display(), source.display()))
        }
        _ => Ok(()),
    }
}
