//! Linux.
//!
//! `openat2` follows no link and does not leave the directory, in one call. Where the kernel has no such call (before
//! 5.6, or a sandbox) the name is walked component by component.

use super::{Found, Kind};
use crate::system::Identity;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

const INSIDE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
const WALK: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// A named pipe or device must not make the opening wait, nor a terminal become ours.
const FILE: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY);

/// An open directory.
pub(in crate::copy) struct Tree {
    directory: OwnedFd,
    /// The kernel has `openat2`.
    at_once: bool,
}

impl Tree {
    /// Links in `path` itself are followed.
    pub(in crate::copy) fn open(path: &Path) -> io::Result<Tree> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        // EPERM: a sandbox that knows the call less than the kernel does.
        let tried = rustix::fs::openat2(&directory, ".", flags, Mode::empty(), INSIDE);
        Ok(Tree { directory, at_once: !matches!(tried, Err(Errno::NOSYS | Errno::PERM)) })
    }

    #[cfg(test)]
    pub(in crate::copy) fn by_components(self) -> Tree {
        Tree { at_once: false, ..self }
    }

    fn at(&self, name: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let name = if name.as_os_str().is_empty() { Path::new(".") } else { name };
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if !self.at_once {
            return Ok(self.component_by_component(name, flags, mode)?);
        }
        loop {
            match rustix::fs::openat2(&self.directory, name, flags, mode, INSIDE) {
                // Something was renamed meanwhile, and the kernel has to look once more.
                Err(Errno::AGAIN) => {}
                result => return Ok(result?),
            }
        }
    }

    fn component_by_component(&self, name: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let mut inside: Option<OwnedFd> = None;
        let mut components = name.components().peekable();
        while let Some(component) = components.next() {
            let name = match component {
                Component::Normal(name) => name,
                Component::CurDir => OsStr::new("."),
                _ => return Err(Errno::XDEV),
            };
            let from: BorrowedFd<'_> = inside.as_ref().map_or(self.directory.as_fd(), OwnedFd::as_fd);
            if components.peek().is_none() {
                return rustix::fs::openat(from, name, flags, mode);
            }
            inside = Some(rustix::fs::openat(from, name, WALK, Mode::empty())?);
        }
        Err(Errno::NOENT)
    }

    /// The directory that `name` is in, and what it is called there.
    fn parent<'a>(&self, name: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let (Some(parent), Some(last)) = (name.parent(), name.file_name()) else { return Err(Errno::NOENT.into()) };
        Ok((self.at(parent, WALK, Mode::empty())?, last))
    }

    /// A file to read. `around`: past the cache.
    pub(in crate::copy) fn read(&self, name: &Path, around: bool) -> io::Result<File> {
        let direct = if around { OFlags::DIRECT } else { OFlags::empty() };
        waiting(self.at(name, OFlags::RDONLY | FILE | direct, Mode::empty())?, direct)
    }

    /// A file that is there, to write, and to read what is there.
    pub(in crate::copy) fn write(&self, name: &Path, around: bool) -> io::Result<File> {
        let direct = if around { OFlags::DIRECT } else { OFlags::empty() };
        waiting(self.at(name, OFlags::RDWR | FILE | direct, Mode::empty())?, direct)
    }

    /// A file that was not there.
    pub(in crate::copy) fn make(&self, name: &Path, permissions: &Permissions) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        Ok(self.at(name, flags, Mode::from_raw_mode(permissions.mode()))?.into())
    }

    /// What is in a directory, and its permissions.
    pub(in crate::copy) fn list(&self, name: &Path) -> io::Result<(Vec<Found>, Permissions)> {
        let directory = self.at(name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        let permissions = Permissions::from_mode(rustix::fs::fstat(&directory)?.st_mode);
        let mut all = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let bytes = entry.file_name().to_bytes();
            if bytes == b"." || bytes == b".." {
                continue;
            }
            let kind = match entry.file_type() {
                // A file system that does not tell.
                FileType::Unknown => {
                    let stat = rustix::fs::statat(&directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
                    FileType::from_raw_mode(stat.st_mode)
                }
                kind => kind,
            };
            all.push(Found { name: OsString::from_vec(bytes.to_vec()), kind: Kind::from(kind) });
        }
        Ok((all, permissions))
    }

    /// A directory, to have its names synced.
    pub(in crate::copy) fn directory(&self, name: &Path) -> io::Result<Option<File>> {
        Ok(Some(self.at(name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?.into()))
    }

    pub(in crate::copy) fn make_directory(&self, name: &Path, permissions: &Permissions) -> io::Result<()> {
        let (parent, last) = self.parent(name)?;
        Ok(rustix::fs::mkdirat(parent, last, Mode::from_raw_mode(permissions.mode()))?)
    }

    /// Of a directory or a file, whatever its permissions are, but not of what a link leads to.
    pub(in crate::copy) fn set_permissions(
        &self,
        name: &Path,
        directory: bool,
        permissions: &Permissions,
    ) -> io::Result<()> {
        let kind = if directory { OFlags::DIRECTORY } else { FILE };
        match self.at(name, OFlags::RDONLY | kind, Mode::empty()) {
            Ok(open) => File::from(open).set_permissions(permissions.clone()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let kind = if directory { OFlags::DIRECTORY } else { OFlags::empty() };
                let named = self.at(name, OFlags::PATH | kind, Mode::empty())?;
                // What has no permission to be read can still be named by its descriptor. Of a link there are none.
                if FileType::from_raw_mode(rustix::fs::fstat(&named)?.st_mode) == FileType::Symlink {
                    return Err(Errno::LOOP.into());
                }
                let path = format!("/proc/self/fd/{}", named.as_raw_fd());
                Ok(rustix::fs::chmod(path, Mode::from_raw_mode(permissions.mode()))?)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes a link that says `to`, as the one called `like` in `source` does.
    pub(in crate::copy) fn link(&self, name: &Path, to: &Path, _like: (&Tree, &Path)) -> io::Result<()> {
        let (parent, last) = self.parent(name)?;
        Ok(rustix::fs::symlinkat(to, parent, last)?)
    }

    pub(in crate::copy) fn read_link(&self, name: &Path) -> io::Result<PathBuf> {
        let (parent, last) = self.parent(name)?;
        let to = rustix::fs::readlinkat(parent, last, Vec::new())?;
        Ok(PathBuf::from(OsStr::from_bytes(to.as_bytes())))
    }

    /// Removes a link or a file.
    pub(in crate::copy) fn remove(&self, name: &Path) -> io::Result<()> {
        let (parent, last) = self.parent(name)?;
        Ok(rustix::fs::unlinkat(parent, last, AtFlags::empty())?)
    }

    /// Which file it is.
    pub(in crate::copy) fn identity(&self, name: &Path) -> io::Result<Identity> {
        crate::system::identity(&self.at(name, OFlags::PATH, Mode::empty())?.into())
    }
}

/// Its operations may wait again, now that its opening has not waited: of a descriptor that does not wait an engine
/// returns an error for what the cache has not.
fn waiting(file: OwnedFd, flags: OFlags) -> io::Result<File> {
    rustix::fs::fcntl_setfl(&file, flags)?;
    Ok(file.into())
}

impl From<FileType> for Kind {
    fn from(kind: FileType) -> Kind {
        match kind {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Link,
            FileType::Fifo => Kind::Special("a pipe"),
            FileType::Socket => Kind::Special("a socket"),
            FileType::CharacterDevice => Kind::Special("a character device"),
            _ => Kind::File,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_is_reached_through_a_link_by_either_way() {
        let top = std::env::temp_dir().join(format!("wharf-tree-{}", std::process::id()));
        let (root, out) = (top.join("root"), top.join("out"));
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir_all(&out).unwrap();
        fs::write(out.join("file"), "out").unwrap();
        fs::write(root.join("a/b/file"), "in").unwrap();
        symlink("../out", root.join("link")).unwrap();
        symlink("../../out/file", root.join("a/file")).unwrap();
        symlink("a", root.join("inner")).unwrap();
        let plain = Permissions::from_mode(0o600);
        for by_components in [false, true] {
            let tree = Tree::open(&root).unwrap();
            let tree = if by_components { tree.by_components() } else { tree };
            assert!(tree.read(Path::new("a/b/file"), false).is_ok());
            assert!(tree.list(Path::new("")).is_ok_and(|(names, _)| names.len() == 3));
            for name in ["link/file", "a/file", "inner/b/file", "../out/file", "a/../../out/file"] {
                let name = Path::new(name);
                assert!(tree.read(name, false).is_err(), "{by_components} {}", name.display());
                assert!(tree.write(name, false).is_err(), "{by_components} {}", name.display());
                assert!(tree.make(name, &plain).is_err(), "{by_components} {}", name.display());
                assert!(tree.set_permissions(name, false, &plain).is_err(), "{by_components} {}", name.display());
            }
            for name in ["link", "link/.", "inner/b"] {
                assert!(tree.list(Path::new(name)).is_err(), "{by_components} {name}");
                assert!(tree.set_permissions(Path::new(name), true, &plain).is_err(), "{by_components} {name}");
            }
            for name in ["link/new", "inner/new", "../new"] {
                let name = Path::new(name);
                assert!(tree.make_directory(name, &plain).is_err(), "{by_components} {}", name.display());
                assert!(tree.make(name, &plain).is_err(), "{by_components} {}", name.display());
            }
            assert!(tree.remove(Path::new("link/file")).is_err() && out.join("file").exists());
        }
        fs::remove_dir_all(&top).unwrap();
    }
}
