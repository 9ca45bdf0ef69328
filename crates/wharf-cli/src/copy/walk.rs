//! What is to be copied, one file after another. Directories and links are made on the way.
//!
//! The names of a directory are read before anything in it is copied: one descriptor is open for them at a time,
//! however deep the tree is.

use super::failure::{Failure, Weight, cannot};
use super::tree::{Found, Kind, Tree};
use crate::options::Copy;
use crate::system;
use std::fs::{self, Permissions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A file, and where its copy goes.
pub(super) struct Entry {
    pub(super) source: PathBuf,
    pub(super) target: PathBuf,
    /// It is one of a tree, of which others were copied before it.
    pub(super) inside: Option<Inside>,
    /// The copy was made, and could not be opened altogether. It is tried again.
    pub(super) made: AtomicBool,
}

/// Where in both trees it is.
pub(super) struct Inside {
    pub(super) trees: Arc<Trees>,
    pub(super) name: PathBuf,
}

/// What is copied, and the copy.
pub(super) struct Trees {
    pub(super) source: Tree,
    pub(super) target: Tree,
}

pub(super) struct Walk {
    /// An existing copy may be changed.
    over: bool,
    resume: bool,
    source: PathBuf,
    target: PathBuf,
    /// The directory that the copy is in.
    parent: PathBuf,
    begun: bool,
    /// Both, if it is a tree.
    trees: Option<Arc<Trees>>,
    /// Directories, with what is still to come of each.
    open: Vec<(PathBuf, Vec<Found>)>,
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
            source,
            target,
            begun: false,
            trees: None,
            open: Vec::new(),
            finished: Vec::new(),
        }
    }

    /// The next file.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Failure> {
        if !self.begun {
            // A link that is named on the command line is followed, one inside a tree is kept.
            let about = fs::metadata(&self.source).map_err(|error| cannot("read", &self.source, &error))?;
            if !about.is_dir() {
                self.begun = true;
                refuse_special(&self.source, system::special(about.file_type()))?;
                return Ok(Some(Entry {
                    source: self.source.clone(),
                    target: self.target.clone(),
                    inside: None,
                    made: AtomicBool::new(false),
                }));
            }
            self.begin(&about.permissions())?;
            self.begun = true;
        }
        while let Some((directory, listing)) = self.open.last_mut() {
            let Some(found) = listing.pop() else {
                self.open.pop();
                continue;
            };
            let name = directory.join(&found.name);
            let result = match found.kind {
                Kind::Directory => self.enter(name),
                Kind::Link => self.link(&name),
                Kind::Special(what) => refuse_special(&self.source.join(name), Some(what)).map_err(inside),
                Kind::File => return Ok(Some(self.entry(name))),
            };
            match result {
                Ok(()) => {}
                Err(failure) => {
                    if failure.weight == Weight::Scarce {
                        // It comes again.
                        self.open.last_mut().expect("nothing was entered").1.push(found);
                    }
                    return Err(failure);
                }
            }
        }
        Ok(None)
    }

    /// Something was found: what goes wrong now need not keep the rest from being copied.
    pub(super) fn is_under_way(&self) -> bool {
        self.trees.is_some()
    }

    fn entry(&self, name: PathBuf) -> Entry {
        let trees = self.trees.clone().expect("it is a tree");
        Entry {
            source: self.source.join(&name),
            target: self.target.join(&name),
            inside: Some(Inside { trees, name }),
            made: AtomicBool::new(false),
        }
    }

    /// Makes the copy of the tree itself, and opens both. Links that are named on the command line are followed.
    fn begin(&mut self, permissions: &Permissions) -> Result<(), Failure> {
        let (source, target) = (&self.source, &self.target);
        let failed = |error| cannot("make the directory", target, &error);
        match system::make_directory(target, &system::enterable(&system::kept(permissions))) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.over => {
                if !target.is_dir() {
                    return Err(no_directory(target).into());
                }
            }
            result => result.map_err(failed)?,
        }
        let trees = Trees {
            source: Tree::open(source).map_err(|error| cannot("read", source, &error))?,
            target: Tree::open(target).map_err(failed)?,
        };
        let (listing, permissions) =
            trees.source.list(Path::new("")).map_err(|error| cannot("list", source, &error))?;
        self.trees = Some(Arc::new(trees));
        self.fill(PathBuf::new(), listing, &permissions, true)
    }

    /// Makes a directory's copy, and goes on with what it holds.
    fn enter(&mut self, name: PathBuf) -> Result<(), Failure> {
        let trees = self.trees.as_ref().expect("it is a tree");
        let (source, target) = (self.source.join(&name), self.target.join(&name));
        let (listing, permissions) =
            trees.source.list(&name).map_err(|error| Failure::of("list", &source, &error, true))?;
        let there = match trees.target.make_directory(&name, &system::enterable(&system::kept(&permissions))) {
            Ok(()) => false,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.over => true,
            Err(error) => return Err(Failure::of("make the directory", &target, &error, true)),
        };
        self.fill(name, listing, &permissions, there)
    }

    /// A directory's copy is made, or was there, and is to be filled.
    fn fill(
        &mut self,
        name: PathBuf,
        listing: Vec<Found>,
        permissions: &Permissions,
        there: bool,
    ) -> Result<(), Failure> {
        let trees = self.trees.as_ref().expect("it is a tree");
        let permissions = system::kept(permissions);
        let target = self.target.join(&name);
        if there {
            // An earlier copy may have made it read-only.
            trees.target.set_permissions(&name, true, &system::enterable(&permissions)).map_err(|error| {
                let known = in_the_way(&target)
                    .or_else(|| (error.kind() == io::ErrorKind::NotADirectory).then(|| no_directory(&target)));
                known.map_or_else(|| Failure::of("fill the directory", &target, &error, true), inside)
            })?;
        }
        self.finished.push((name.clone(), permissions));
        self.open.push((name, listing));
        Ok(())
    }

    fn link(&self, name: &Path) -> Result<(), Failure> {
        let Trees { source, target } = &**self.trees.as_ref().expect("it is a tree");
        let (named, copy) = (self.source.join(name), self.target.join(name));
        let to = source.read_link(name).map_err(|error| Failure::of("read the link", &named, &error, true))?;
        let failed = |error| Failure::of("make the link", &copy, &error, true);
        match target.link(name, &to, (source, name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.over => {
                if target.read_link(name).is_ok_and(|there| there == to) {
                    return Ok(());
                }
                if self.resume {
                    let (copy, named) = (copy.display(), named.display());
                    return Err(inside(format!("{copy} is not the link that {named} is; --force overwrites it")));
                }
                target.remove(name).and_then(|()| target.link(name, &to, (source, name))).map_err(failed)
            }
            result => result.map_err(failed),
        }
    }

    /// Everything is copied: directories get their permissions, the innermost first. What went wrong.
    pub(super) fn finish(&mut self, sync: bool) -> Vec<Failure> {
        let mut failures = Vec::new();
        for (name, permissions) in self.finished.drain(..).rev() {
            let target = &self.trees.as_ref().expect("it is a tree").target;
            let finish = || {
                let directory = if sync { target.directory(&name)? } else { None };
                target.set_permissions(&name, true, &permissions)?;
                directory.map_or(Ok(()), |directory| directory.sync_all())
            };
            let failed = |error| Failure::of("finish the directory", &self.target.join(&name), &error, true);
            failures.extend(finish().map_err(failed).err());
        }
        if sync {
            // The copy's own name.
            let parent = system::directory(&self.parent);
            let synced = parent.and_then(|parent| parent.map_or(Ok(()), |parent| parent.sync_all()));
            let failed = |error| Failure::of("sync the directory", &self.parent, &error, true);
            failures.extend(synced.map_err(failed).err());
        }
        failures
    }
}

/// Within a tree something was copied already.
fn inside(failure: impl Into<Failure>) -> Failure {
    Failure { resumable: true, ..failure.into() }
}

/// What to say of a name in the copy that is a link, and must be none. Only what is said depends on it.
pub(super) fn in_the_way(target: &Path) -> Option<String> {
    let link = fs::symlink_metadata(target).is_ok_and(|about| about.is_symlink());
    link.then(|| {
        format!(
            "{} is a link, and a tree is not copied through links; remove it, or choose another target",
            target.display()
        )
    })
}

fn refuse_special(path: &Path, special: Option<&'static str>) -> Result<(), Failure> {
    let Some(what) = special else { return Ok(()) };
    Err(format!("{} is {what}, which has no content to copy; name a file, or remove it from the tree", path.display())
        .into())
}

fn no_directory(target: &Path) -> String {
    format!("{} is there, and no directory; remove it, or choose another target", target.display())
}
