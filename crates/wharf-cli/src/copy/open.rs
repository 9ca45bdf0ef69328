//! A file and its copy, opened.

use super::failure::{Failure, cannot, weight};
use super::walk::{Entry, Inside, in_the_way};
use crate::options::Copy;
use crate::system;
use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use wharf::{CompletionPort, Context};

/// What every disk's direct I/O is content with.
pub(super) const ALIGNMENT: usize = 4096;

pub(super) type File<C> = wharf::fs::File<(), C>;

/// Both ends of a copy.
pub(super) struct Ends<C> {
    pub(super) source: File<C>,
    pub(super) target: File<C>,
    /// The same files around the cache, up to the last multiple of [`ALIGNMENT`].
    pub(super) direct: Option<(File<C>, File<C>)>,
    /// What the source held when it was opened, or said to hold.
    pub(super) length: u64,
    /// What the target held, when it is continued.
    pub(super) there: u64,
    /// Where the source has holes, to find what is none.
    pub(super) sparse: Option<fs::File>,
    /// The copy gets its permissions by this: its name may be another file's by then.
    pub(super) copy: fs::File,
    pub(super) permissions: Permissions,
}

/// Opens both, and makes the copy if it is not there.
pub(super) fn open<C: Context>(
    port: &CompletionPort<(), C>,
    options: &Copy,
    entry: &Entry,
) -> Result<Ends<C>, Failure> {
    let Entry { source, target, inside, .. } = entry;
    let resumable = inside.is_some();
    let cannot_read = |error: io::Error| Failure::of("read", source, &error, resumable);
    let cannot_write = |error: io::Error| {
        let sentence = match fs::symlink_metadata(target) {
            Ok(about) if about.is_symlink() && resumable => in_the_way(target),
            // It is there, and what it leads to is not.
            Ok(about) if about.is_symlink() && fs::metadata(target).is_err() => {
                Some(format!("{} is a link that leads nowhere; remove it, or choose another target", target.display()))
            }
            _ => None,
        };
        Failure {
            sentence: sentence.unwrap_or_else(|| cannot("write", target, &error)),
            resumable,
            weight: weight(&error),
        }
    };
    let from = open_source(entry, false).map_err(cannot_read)?;
    let about = from.metadata().map_err(cannot_read)?;
    if let Some(what) = system::special(about.file_type()) {
        // It has taken the place of a file.
        return Err(format!("{} is {what}, which has no content to copy", source.display()).into());
    }
    let ours = system::identity(&from).map_err(cannot_read)?;
    let permissions = system::kept(&about.permissions());
    // Before it is opened, which may change its permissions; what comes in between is seen below.
    let there = match inside {
        Some(Inside { trees, name }) => trees.target.identity(name),
        None => system::identity_of(target),
    };
    if there.is_ok_and(|there| there == ours) {
        return Err(same_file(entry));
    }
    let to = open_target(options, entry, &system::writable(&permissions)).map_err(cannot_write)?;
    let there = to.metadata().map_err(cannot_write)?;
    if system::identity(&to).map_err(cannot_write)? == ours {
        return Err(same_file(entry));
    }
    if !there.is_file() {
        return Err(format!("{} is no file; remove it, or choose another target", target.display()).into());
    }
    let mut there = there.len();
    if options.force {
        to.set_len(0).map_err(cannot_write)?;
        there = 0;
    } else if there > about.len() && about.is_file() {
        let (source, target) = (source.display(), target.display());
        return Err(
            format!("{target} is longer than {source}, so it cannot be continued; --force copies it anew").into()
        );
    }
    let direct = if options.direct && about.len() >= ALIGNMENT as u64 {
        let around = |path: &Path, opened: io::Result<fs::File>| {
            let file = opened.map_err(|error| match error.kind() {
                io::ErrorKind::InvalidInput => Failure::from(format!(
                    "the file system of {} offers no direct I/O ({error}); leave --direct out",
                    path.display()
                )),
                _ => cannot("open for direct I/O", path, &error).into(),
            })?;
            let failed = |error: io::Error| Failure::from(cannot("open for direct I/O", path, &error));
            port.associate(file, ()).map_err(|rejected| failed(rejected.into()))
        };
        Some((around(source, open_source(entry, true))?, around(target, open_existing(entry, true))?))
    } else {
        None
    };
    Ok(Ends {
        length: about.len(),
        permissions,
        sparse: if system::has_holes(&about) { Some(from.try_clone().map_err(cannot_read)?) } else { None },
        source: port.associate(from, ()).map_err(|rejected| cannot_read(rejected.into()))?,
        copy: to.try_clone().map_err(cannot_write)?,
        target: port.associate(to, ()).map_err(|rejected| cannot_write(rejected.into()))?,
        direct,
        there,
    })
}

fn same_file(Entry { source, target, .. }: &Entry) -> Failure {
    format!("{} and {} are the same file; choose another target", source.display(), target.display()).into()
}

/// `around`: past the cache.
fn open_source(Entry { source, inside, .. }: &Entry, around: bool) -> io::Result<fs::File> {
    match inside {
        Some(Inside { trees, name }) => trees.source.read(name, around),
        None => past_cache(OpenOptions::new().read(true), around).open(source),
    }
}

fn open_existing(Entry { target, inside, .. }: &Entry, around: bool) -> io::Result<fs::File> {
    match inside {
        Some(Inside { trees, name }) => trees.target.write(name, around),
        None => past_cache(OpenOptions::new().read(true).write(true), around).open(target),
    }
}

fn past_cache(options: &mut OpenOptions, around: bool) -> &OpenOptions {
    if around { system::around_cache(options) } else { options }
}

fn open_target(options: &Copy, entry: &Entry, permissions: &Permissions) -> io::Result<fs::File> {
    let made = match &entry.inside {
        Some(Inside { trees, name }) => trees.target.make(name, permissions),
        None => {
            let mut open = OpenOptions::new();
            system::make_with(open.read(true).write(true), permissions).create_new(true).open(&entry.target)
        }
    };
    let over = options.force || options.resume || entry.made.load(Ordering::Relaxed);
    match made {
        Ok(file) => {
            entry.made.store(true, Ordering::Relaxed);
            return Ok(file);
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && over => {}
        Err(error) => return Err(error),
    }
    // By force it is emptied, too, when it is known not to be the source.
    match open_existing(entry, false) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            // A copy that was finished may be read-only, as its source is.
            let writable = match &entry.inside {
                Some(Inside { trees, name }) => trees.target.set_permissions(name, false, permissions),
                None => fs::set_permissions(&entry.target, permissions.clone()),
            };
            writable.map_err(|_| error)?;
            open_existing(entry, false)
        }
        other => other,
    }
}
