//! Windows.
//!
//! Every component is looked at before a name is used. What somebody replaces by a link between the look and the use
//! is followed; making links needs the developer mode or an administrator there.

use super::{Found, Kind};
use crate::system::{self, Identity};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::windows::fs::{FileTypeExt, symlink_dir, symlink_file};
use std::path::{Path, PathBuf};
use windows_sys::Win32::Foundation::ERROR_CANT_RESOLVE_FILENAME;

/// A directory.
pub(in crate::copy) struct Tree {
    directory: PathBuf,
}

impl Tree {
    /// Links in `path` itself are followed.
    pub(in crate::copy) fn open(path: &Path) -> io::Result<Tree> {
        fs::canonicalize(path).map(|directory| Tree { directory })
    }

    /// The path of a name, if no link is on the way to it.
    fn way(&self, name: &Path) -> io::Result<PathBuf> {
        let mut path = self.directory.clone();
        let mut components = name.components().peekable();
        while let Some(component) = components.next() {
            path.push(component);
            if components.peek().is_some() && fs::symlink_metadata(&path)?.is_symlink() {
                return Err(in_the_way());
            }
        }
        Ok(path)
    }

    /// The same, and it is no link itself.
    fn at(&self, name: &Path) -> io::Result<PathBuf> {
        let path = self.way(name)?;
        match fs::symlink_metadata(&path) {
            Ok(about) if about.is_symlink() => Err(in_the_way()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(path),
        }
    }

    /// A file to read. `around`: past the cache.
    pub(in crate::copy) fn read(&self, name: &Path, around: bool) -> io::Result<File> {
        opening(OpenOptions::new().read(true), around).open(self.at(name)?)
    }

    /// A file that is there, to write, and to read what is there.
    pub(in crate::copy) fn write(&self, name: &Path, around: bool) -> io::Result<File> {
        opening(OpenOptions::new().read(true).write(true), around).open(self.at(name)?)
    }

    /// A file that was not there. It gets its permissions when it is finished.
    pub(in crate::copy) fn make(&self, name: &Path, _: &Permissions) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(self.way(name)?)
    }

    /// What is in a directory, and its permissions.
    pub(in crate::copy) fn list(&self, name: &Path) -> io::Result<(Vec<Found>, Permissions)> {
        let path = self.at(name)?;
        let permissions = fs::metadata(&path)?.permissions();
        let kind = |entry: &fs::DirEntry| {
            entry.file_type().map(|kind| match kind {
                kind if kind.is_symlink() => Kind::Link,
                kind if kind.is_dir() => Kind::Directory,
                _ => Kind::File,
            })
        };
        let all = fs::read_dir(path)?
            .map(|entry| entry.and_then(|entry| Ok(Found { name: entry.file_name(), kind: kind(&entry)? })));
        Ok((all.collect::<io::Result<_>>()?, permissions))
    }

    /// Windows writes a file's name with the file: there is nothing to sync.
    pub(in crate::copy) fn directory(&self, _: &Path) -> io::Result<Option<File>> {
        Ok(None)
    }

    pub(in crate::copy) fn make_directory(&self, name: &Path, _: &Permissions) -> io::Result<()> {
        fs::create_dir(self.way(name)?)
    }

    /// Of a directory or a file, but not of what a link leads to.
    pub(in crate::copy) fn set_permissions(&self, name: &Path, _: bool, permissions: &Permissions) -> io::Result<()> {
        fs::set_permissions(self.at(name)?, permissions.clone())
    }

    /// Makes a link that says `to`, as the one called `like` in `source` does: Windows asks whether it leads to a
    /// directory.
    pub(in crate::copy) fn link(&self, name: &Path, to: &Path, (source, like): (&Tree, &Path)) -> io::Result<()> {
        let path = self.way(name)?;
        match fs::symlink_metadata(source.way(like)?)?.file_type().is_symlink_dir() {
            true => symlink_dir(to, path),
            false => symlink_file(to, path),
        }
    }

    pub(in crate::copy) fn read_link(&self, name: &Path) -> io::Result<PathBuf> {
        fs::read_link(self.way(name)?)
    }

    /// Removes a link or a file: a link to a directory is removed as a directory is.
    pub(in crate::copy) fn remove(&self, name: &Path) -> io::Result<()> {
        let path = self.way(name)?;
        match fs::symlink_metadata(&path)?.file_type().is_symlink_dir() {
            true => fs::remove_dir(path),
            false => fs::remove_file(path),
        }
    }

    /// Which file it is.
    pub(in crate::copy) fn identity(&self, name: &Path) -> io::Result<Identity> {
        system::identity_of(&self.at(name)?)
    }
}

fn opening(options: &mut OpenOptions, around: bool) -> &OpenOptions {
    if around { system::around_cache(options) } else { options }
}

fn in_the_way() -> io::Error {
    io::Error::from_raw_os_error(ERROR_CANT_RESOLVE_FILENAME.cast_signed())
}
