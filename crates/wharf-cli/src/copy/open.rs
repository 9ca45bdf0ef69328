//! A file and its copy, opened.

use super::failure::{Failure, cannot};
use super::walk::Entry;
use crate::options::Copy;
use crate::system;
use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::path::Path;
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
    /// What the source held when it was opened.
    pub(super) length: u64,
    /// What the target held, when it is continued.
    pub(super) there: u64,
    pub(super) permissions: Permissions,
}

/// Opens both, and makes the copy if it is not there.
pub(super) fn open<C: Context>(
    port: &CompletionPort<(), C>,
    options: &Copy,
    entry: &Entry,
) -> Result<Ends<C>, Failure> {
    let &Entry { ref source, ref target, of_tree } = entry;
    let cannot_read = |error| Failure { sentence: cannot("read", source, &error), resumable: of_tree };
    let cannot_write = |error: io::Error| {
        let sentence = match fs::symlink_metadata(target) {
            // It is there, and what it leads to is not.
            Ok(about) if about.is_symlink() && fs::metadata(target).is_err() => {
                format!("{} is a link that leads nowhere; remove it, or choose another target", target.display())
            }
            _ => cannot("write", target, &error),
        };
        Failure { sentence, resumable: of_tree }
    };
    let from = fs::File::open(source).map_err(cannot_read)?;
    let about = from.metadata().map_err(cannot_read)?;
    let ours = system::identity(&from).map_err(cannot_read)?;
    let permissions = system::kept(&about.permissions());
    // Before it is opened, which may change its permissions; what comes in between is seen below.
    if system::identity_of(target).is_ok_and(|there| there == ours) {
        return Err(same_file(entry));
    }
    let to = open_target(options, target, &system::writable(&permissions)).map_err(cannot_write)?;
    let there = to.metadata().map_err(cannot_write)?;
    if system::identity(&to).map_err(cannot_write)? == ours {
        return Err(same_file(entry));
    }
    if !there.is_file() {
        return Err(format!("{} is no file; choose another target", target.display()).into());
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
        let around = |path: &Path, options: &mut OpenOptions| {
            port.open(path, system::around_cache(options), ()).map_err(|error| match error.kind() {
                io::ErrorKind::InvalidInput => Failure::from(format!(
                    "the file system of {} offers no direct I/O ({error}); leave --direct out",
                    path.display()
                )),
                _ => cannot("open for direct I/O", path, &error).into(),
            })
        };
        Some((around(source, OpenOptions::new().read(true))?, around(target, OpenOptions::new().write(true))?))
    } else {
        None
    };
    Ok(Ends {
        length: about.len(),
        permissions,
        source: port.associate(from, ()).map_err(|rejected| cannot_read(rejected.into()))?,
        target: port.associate(to, ()).map_err(|rejected| cannot_write(rejected.into()))?,
        direct,
        there,
    })
}

fn same_file(Entry { source, target, .. }: &Entry) -> Failure {
    format!("{} and {} are the same file; choose another target", source.display(), target.display()).into()
}

fn open_target(options: &Copy, target: &Path, permissions: &Permissions) -> io::Result<fs::File> {
    let mut open = OpenOptions::new();
    system::make_with(open.read(true).write(true), permissions);
    match open.clone().create_new(true).open(target) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && (options.force || options.resume) => {}
        other => return other,
    }
    // By force it is emptied, too, when it is known not to be the source.
    match open.open(target) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            // A copy that was finished may be read-only, as its source is.
            fs::set_permissions(target, permissions.clone()).map_err(|_| error)?;
            open.open(target)
        }
        other => other,
    }
}
