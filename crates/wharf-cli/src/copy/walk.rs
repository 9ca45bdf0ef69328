//! What is to be copied, one file after another. Directories and links are made on the way.

use super::failure::{Failure, cannot};
use crate::options::Copy;
use crate::system;
use std::fs::{self, Permissions, ReadDir};
use std::io;
use std::path::{Path, PathBuf};

/// A file, and where its copy goes.
pub(super) struct Entry {
    pub(super) source: PathBuf,
    pub(super) target: PathBuf,
    /// It is one of a tree, of which others were copied before it.
    pub(super) of_tree: bool,
}

pub(super) struct Walk {
    /// An existing copy may be changed.
    over: bool,
    resume: bool,
    /// Where it begins; `None` once it has.
    root: Option<Entry>,
    /// The directory that the copy is in.
    parent: PathBuf,
    /// Directories that are being read, with where their copies are.
    open: Vec<(ReadDir, PathBuf)>,
    /// What directories get when all is in them: until then they are writable.
    finished: Vec<(PathBuf, Permissions)>,
}

impl Walk {
    pub(super) fn new(options: &Copy, source: PathBuf, target: PathBuf) -> Walk {
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Walk {
            parent: parent.to_owned(),
            over: options.force || options.resume,
            resume: options.resume,
            root: Some(Entry { source, target, of_tree: false }),
            open: Vec::new(),
            finished: Vec::new(),
        }
    }

    /// The next file.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Failure> {
        if let Some(root) = self.root.take() {
            // A link that is named on the command line is followed, one inside a tree is kept.
            let about = fs::metadata(&root.source).map_err(|error| cannot("read", &root.source, &error))?;
            if about.is_dir() {
                self.enter(&root, about.permissions())?;
            } else {
                refuse_special(&root.source, about.file_type())?;
                return Ok(Some(root));
            }
        }
        while let Some((listing, target)) = self.open.last_mut() {
            let Some(found) = listing.next() else {
                self.open.pop();
                continue;
            };
            let found = found.map_err(|error| inside(cannot("list the directory of", target, &error)))?;
            let entry = Entry { source: found.path(), target: target.join(found.file_name()), of_tree: true };
            let failed = |error| inside(cannot("read", &entry.source, &error));
            let kind = found.file_type().map_err(failed)?;
            if kind.is_dir() {
                self.enter(&entry, found.metadata().map_err(failed)?.permissions())?;
            } else if kind.is_symlink() {
                self.link(&entry)?;
            } else {
                refuse_special(&entry.source, kind).map_err(inside)?;
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// Makes a directory's copy, and goes on with what it holds.
    fn enter(&mut self, entry: &Entry, permissions: Permissions) -> Result<(), Failure> {
        let Entry { source, target, .. } = entry;
        let listing = fs::read_dir(source).map_err(|error| cannot("list", source, &error))?;
        let permissions = system::kept(&permissions);
        let meanwhile = system::enterable(&permissions);
        let failed = |error| inside(cannot("make the directory", target, &error));
        match system::make_directory(target, &meanwhile) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.over && target.is_dir() => {
                // An earlier copy may have made it read-only.
                fs::set_permissions(target, meanwhile).map_err(failed)?;
            }
            Err(error) => return Err(cannot("make the directory", target, &error).into()),
        }
        self.finished.push((target.clone(), permissions));
        self.open.push((listing, target.clone()));
        Ok(())
    }

    fn link(&self, Entry { source, target, .. }: &Entry) -> Result<(), Failure> {
        let to = fs::read_link(source).map_err(|error| inside(cannot("read the link", source, &error)))?;
        let failed = |error| inside(cannot("make the link", target, &error));
        match system::link(&to, target, source) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.over => {
                if fs::read_link(target).is_ok_and(|there| there == to) {
                    return Ok(());
                }
                if self.resume {
                    let (target, source) = (target.display(), source.display());
                    return Err(format!("{target} is not the link that {source} is; --force overwrites it").into());
                }
                system::remove_link(target).and_then(|()| system::link(&to, target, source)).map_err(failed)
            }
            result => result.map_err(failed),
        }
    }

    /// Everything is copied: directories get their permissions, the innermost first.
    pub(super) fn finish(&mut self, sync: bool) -> Result<(), Failure> {
        for (path, permissions) in self.finished.drain(..).rev() {
            let failed = |error| inside(cannot("finish the directory", &path, &error));
            let directory = if sync { system::directory(&path).map_err(failed)? } else { None };
            fs::set_permissions(&path, permissions).map_err(failed)?;
            directory.map_or(Ok(()), |directory| directory.sync_all()).map_err(failed)?;
        }
        if sync {
            // The copy's own name.
            let parent = system::directory(&self.parent);
            let synced = parent.and_then(|parent| parent.map_or(Ok(()), |parent| parent.sync_all()));
            synced.map_err(|error| inside(cannot("sync the directory", &self.parent, &error)))?;
        }
        Ok(())
    }
}

/// Within a tree something was copied already.
fn inside(failure: impl Into<Failure>) -> Failure {
    Failure { resumable: true, ..failure.into() }
}

fn refuse_special(path: &Path, kind: fs::FileType) -> Result<(), Failure> {
    let Some(what) = system::special(kind) else { return Ok(()) };
    Err(format!("{} is {what}, which has no content to copy; name a file, or remove it from the tree", path.display())
        .into())
}
