//! Opens what a name below the directory stands for, and nothing outside of it.
//!
//! `openat2` does it in the kernel: links that stay below are followed, and no `..`, no link and no rename meanwhile
//! leads out. Where the kernel has no such call (before 5.6, or a sandbox) the name is walked component by component,
//! and no link is followed at all.
//!
//! These calls may wait for a disk. What the kernel has cached it opens at once (`RESOLVE_CACHED`); only what has to
//! wait is announced to the port.

use crate::files::response::Facts;
use crate::files::status::{Status, status};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Access, AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, ReadWriteFlags};
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A named pipe or device must not make the opening wait, nor a terminal become ours.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
const WALK: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const BELOW: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// What is open.
pub type Handle = OwnedFd;
/// Why something is not.
pub type Error = Errno;

/// The directory that is served.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    method: Method,
    /// The kernel (5.12) can be asked for what it has cached.
    asks_cache: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `openat2`.
    Beneath,
    /// One `openat` a component.
    Components,
}

impl Root {
    pub fn open(path: &Path) -> Result<Root, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        // Nothing below it could be opened. Whatever else this says is no reason not to try.
        if let Err(Errno::ACCESS) = rustix::fs::accessat(&directory, ".", Access::EXEC_OK, AtFlags::EACCESS) {
            return Err(Errno::ACCESS);
        }
        // EPERM: a sandbox that knows the call less than the kernel does.
        let method = match rustix::fs::openat2(&directory, ".", flags, Mode::empty(), BELOW) {
            Err(Errno::NOSYS | Errno::PERM) => Method::Components,
            _ => Method::Beneath,
        };
        Ok(Root { directory, method, asks_cache: AtomicBool::new(true) })
    }

    #[cfg(test)]
    pub fn with_method(self, method: Method) -> Root {
        Root { method, ..self }
    }

    #[cfg(test)]
    pub fn method(&self) -> Method {
        self.method
    }

    /// What is served otherwise than usually.
    pub fn warning(&self) -> Option<&'static str> {
        let walks = self.method == Method::Components;
        walks.then_some("this system has no openat2: symbolic links are not followed")
    }

    /// `name`: as [`resolve`](crate::files::path::resolve) makes them. Empty for the directory itself.
    pub fn file(&self, name: &str) -> Result<OwnedFd, Errno> {
        self.below(name, READ)
    }

    /// To read its names.
    pub fn directory(&self, name: &str) -> Result<OwnedFd, Errno> {
        self.below(name, READ | OFlags::DIRECTORY)
    }

    fn below(&self, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let name = if name.is_empty() { "." } else { name };
        match self.method {
            Method::Beneath => self.beneath(name, flags),
            Method::Components => wharf::blocking(|| by_components(self.directory.as_fd(), name, flags)),
        }
    }

    fn beneath(&self, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let open = |resolve| rustix::fs::openat2(&self.directory, name, flags, Mode::empty(), resolve);
        if self.asks_cache.load(Relaxed) {
            match open(BELOW | ResolveFlags::CACHED) {
                Err(Errno::INVAL) => self.asks_cache.store(false, Relaxed),
                // Not cached; or it has to be looked at once more, because something was renamed meanwhile.
                Err(Errno::AGAIN) => {}
                result => return result,
            }
        }
        wharf::blocking(|| open(BELOW))
    }
}

fn by_components(root: BorrowedFd<'_>, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut inside: Option<OwnedFd> = None;
    let mut rest = name;
    while let Some((component, more)) = rest.split_once('/') {
        let from = inside.as_ref().map_or(root, OwnedFd::as_fd);
        inside = Some(rustix::fs::openat(from, component, WALK, Mode::empty())?);
        rest = more;
    }
    let from = inside.as_ref().map_or(root, OwnedFd::as_fd);
    rustix::fs::openat(from, rest, flags | OFlags::NOFOLLOW, Mode::empty())
}

/// What was opened is.
pub enum Looked {
    Regular(Facts),
    Directory,
    Other,
}

pub fn look_at(file: impl AsFd) -> Result<Looked, Status> {
    let stat = rustix::fs::fstat(file).map_err(|error| status_of(&error))?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Looked::Regular(Facts {
            length: u64::try_from(stat.st_size).unwrap_or(0),
            modified: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        }),
        FileType::Directory => Looked::Directory,
        _ => Looked::Other,
    })
}

/// Calls `each` with every name of a directory that is UTF-8, and whether it is a directory's.
pub fn names(directory: OwnedFd, mut each: impl FnMut(&str, bool)) -> Result<(), Errno> {
    for entry in Dir::new(directory)? {
        let entry = entry?;
        if let Ok(text) = entry.file_name().to_str() {
            each(text, entry.file_type() == FileType::Directory);
        }
    }
    Ok(())
}

/// Reads from `offset` on. Without `waits` what the kernel has cached comes at once, or an error.
pub fn read(file: &File, into: &mut [u8], offset: u64, waits: bool) -> io::Result<usize> {
    let result = if waits {
        wharf::blocking(|| rustix::io::pread(file, into, offset))
    } else {
        rustix::io::preadv2(file, &mut [IoSliceMut::new(into)], offset, ReadWriteFlags::NOWAIT)
    };
    Ok(result?)
}

/// There is no such name.
pub fn is_missing(error: &Errno) -> bool {
    *error == Errno::NOENT
}

pub fn status_of(error: &Errno) -> Status {
    match *error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG => status::NOT_FOUND,
        // Outside of the directory; a socket, or a device without a driver.
        Errno::ACCESS | Errno::PERM | Errno::XDEV | Errno::NXIO | Errno::NODEV => status::FORBIDDEN,
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN => {
            log::warn!("a file cannot be opened: {error}; raise the limit (ulimit -n) or lower --max-sessions");
            status::UNAVAILABLE
        }
        other => {
            log::warn!("a file cannot be opened: {other}");
            status::INTERNAL
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    struct Tree(PathBuf);

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn tree(name: &str) -> Tree {
        let top = std::env::temp_dir().join(format!("wharf-open-{name}-{}", std::process::id()));
        let root = top.join("root");
        fs::create_dir_all(root.join("sub/deep")).unwrap();
        fs::write(top.join("secret"), "secret").unwrap();
        fs::write(root.join("a"), "a").unwrap();
        fs::write(root.join("sub/deep/b"), "b").unwrap();
        symlink("sub/deep/b", root.join("inside")).unwrap();
        symlink("../a", root.join("sub/up")).unwrap();
        symlink("sub", root.join("other")).unwrap();
        symlink("../secret", root.join("outside")).unwrap();
        symlink(top.join("secret"), root.join("absolute")).unwrap();
        symlink(&root, root.join("again")).unwrap();
        symlink("..", root.join("parent")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        Tree(top)
    }

    #[test]
    fn nothing_leads_out_of_the_directory() {
        let tree = tree("out");
        for method in [Method::Beneath, Method::Components] {
            let root = Root::open(&tree.0.join("root")).unwrap();
            if root.method() == Method::Components && method == Method::Beneath {
                use std::io::Write;
                let _ = writeln!(std::io::stderr(), "SKIPPED: openat2: this kernel has none");
                continue;
            }
            let root = root.with_method(method);
            for name in ["a", "sub/deep/b"] {
                assert!(root.file(name).is_ok(), "{method:?} {name}");
            }
            for name in ["", "sub", "sub/deep"] {
                assert!(root.directory(name).is_ok(), "{method:?} {name:?}");
            }
            for name in ["inside", "sub/up", "other/deep/b"] {
                assert_eq!(root.file(name).is_ok(), method == Method::Beneath, "{method:?} {name}");
            }
            for name in [
                "outside",
                "absolute",
                "again/a",
                "parent/secret",
                "parent/root/a",
                "magic/etc/passwd",
                "loop",
                "a/b",
                "none",
                "sub/none",
                "other/none",
            ] {
                assert!(root.file(name).is_err(), "{method:?} {name}");
            }
            assert_eq!(root.directory("a").unwrap_err(), Errno::NOTDIR);
        }
        // Even a name that was never resolved does not climb.
        let root = Root::open(&tree.0.join("root")).unwrap();
        if root.method() == Method::Beneath {
            for name in ["../secret", "/etc/passwd", "sub/../../secret"] {
                assert_eq!(root.file(name).unwrap_err(), Errno::XDEV, "{name}");
            }
        }
    }
}
