//! Opens what a name below the directory stands for, and nothing outside of it: Windows.
//!
//! The name is walked component by component, each opened by the kernel's own call below the one before, so that no
//! name is read as Win32 reads names: `..`, drives, devices and dots at the end mean nothing there. What remains is
//! refused here: a colon, which would name a stream of a file; links and all other reparse points (junctions,
//! placeholders of cloud storage), which may lead out; and short names (`PROGRA~1`), which would give what is hidden
//! another name.

use crate::files::response::Facts;
use crate::files::status::{Status, status};
use crate::system;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::windows::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::os::windows::io::{AsRawHandle, FromRawHandle};
use std::path::Path;
use std::time::UNIX_EPOCH;
use windows_sys::Wdk::Foundation::OBJECT_ATTRIBUTES;
use windows_sys::Wdk::Storage::FileSystem as nt;
use windows_sys::Win32::Foundation as base;
use windows_sys::Win32::Storage::FileSystem as files;
use windows_sys::Win32::System::IO::IO_STATUS_BLOCK;

/// What is open.
pub type Handle = File;
/// Why something is not.
pub type Error = io::Error;

const SHARE: u32 = files::FILE_SHARE_READ | files::FILE_SHARE_WRITE | files::FILE_SHARE_DELETE;
/// To look at it, and at what lies below it.
const WALK: u32 = files::FILE_TRAVERSE | files::FILE_READ_ATTRIBUTES | files::SYNCHRONIZE;

/// The directory that is served.
#[derive(Debug)]
pub struct Root {
    directory: File,
}

impl Root {
    pub fn open(path: &Path) -> io::Result<Root> {
        let mut options = OpenOptions::new();
        options.access_mode(files::FILE_LIST_DIRECTORY | WALK).custom_flags(files::FILE_FLAG_BACKUP_SEMANTICS);
        let directory = options.open(path)?;
        if !directory.metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Root { directory })
    }

    /// What is served otherwise than usually.
    pub fn warning(&self) -> Option<&'static str> {
        Some("on Windows symbolic links and junctions are not followed")
    }

    /// `name`: as [`resolve`](crate::files::path::resolve) makes them. Empty for the directory itself.
    pub fn file(&self, name: &str) -> io::Result<File> {
        self.below(name, files::FILE_GENERIC_READ, 0)
    }

    /// To read its names.
    pub fn directory(&self, name: &str) -> io::Result<File> {
        self.below(name, files::FILE_LIST_DIRECTORY | WALK, nt::FILE_DIRECTORY_FILE)
    }

    fn below(&self, name: &str, rights: u32, options: u32) -> io::Result<File> {
        wharf::blocking(|| {
            let mut inside: Option<File> = None;
            let mut rest = name;
            while let Some((component, more)) = rest.split_once('/') {
                let from = inside.as_ref().unwrap_or(&self.directory);
                inside = Some(step(from, component, WALK, nt::FILE_DIRECTORY_FILE)?);
                rest = more;
            }
            step(inside.as_ref().unwrap_or(&self.directory), rest, rights, options)
        })
    }
}

/// Opens what one name in a directory stands for; no name is the directory itself.
#[allow(unsafe_code)]
fn step(from: &File, name: &str, rights: u32, options: u32) -> io::Result<File> {
    if name.contains([':', '\\']) || matches!(name, "." | "..") {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut wide: Vec<u16> = name.encode_utf16().collect();
    let bytes = u16::try_from(wide.len() * 2).map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
    let text = base::UNICODE_STRING { Length: bytes, MaximumLength: bytes, Buffer: wide.as_mut_ptr() };
    let what = OBJECT_ATTRIBUTES {
        Length: size_of::<OBJECT_ATTRIBUTES>() as u32,
        RootDirectory: from.as_raw_handle(),
        ObjectName: &raw const text,
        Attributes: base::OBJ_CASE_INSENSITIVE,
        SecurityDescriptor: std::ptr::null(),
        SecurityQualityOfService: std::ptr::null(),
    };
    let options = options | nt::FILE_OPEN_REPARSE_POINT | nt::FILE_SYNCHRONOUS_IO_NONALERT;
    let mut handle: base::HANDLE = std::ptr::null_mut();
    // SAFETY: a structure of numbers, of which zeros are valid.
    let mut block: IO_STATUS_BLOCK = unsafe { std::mem::zeroed() };
    // SAFETY: all that the pointers name lives through the call, which does not come back before it is done.
    let result = unsafe {
        nt::NtCreateFile(
            &raw mut handle,
            rights,
            &raw const what,
            &raw mut block,
            std::ptr::null(),
            0,
            SHARE,
            nt::FILE_OPEN,
            options,
            std::ptr::null(),
            0,
        )
    };
    if result < 0 {
        // SAFETY: numbers only.
        return Err(io::Error::from_raw_os_error(unsafe { base::RtlNtStatusToDosError(result) }.cast_signed()));
    }
    // SAFETY: it was opened just now, and is nobody else's.
    let file = unsafe { File::from_raw_handle(handle) };
    if file.metadata()?.file_attributes() & files::FILE_ATTRIBUTE_REPARSE_POINT != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    if name.contains('~') && !is_called(&file, name)? {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(file)
}

/// Whether that is its name, and not only a short form of it.
#[allow(unsafe_code)]
fn is_called(file: &File, name: &str) -> io::Result<bool> {
    let mut path = vec![0_u16; 32 * 1024];
    // SAFETY: the room is as large as said, and the handle is open.
    let length = unsafe {
        files::GetFinalPathNameByHandleW(
            file.as_raw_handle(),
            path.as_mut_ptr(),
            path.len() as u32,
            files::VOLUME_NAME_DOS,
        )
    };
    match length as usize {
        0 => Err(io::Error::last_os_error()),
        length => {
            let path = String::from_utf16_lossy(path.get(..length).unwrap_or_default());
            Ok(path.rsplit('\\').next().is_some_and(|last| last.to_lowercase() == name.to_lowercase()))
        }
    }
}

/// What was opened is.
pub enum Looked {
    Regular(Facts),
    Directory,
    Other,
}

pub fn look_at(file: &File) -> Result<Looked, Status> {
    let about = file.metadata().map_err(|error| status_of(&error))?;
    Ok(match about.file_type() {
        kind if kind.is_dir() => Looked::Directory,
        kind if kind.is_file() => {
            let since = about.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
            let modified = (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos());
            Looked::Regular(Facts { length: about.len(), modified })
        }
        _ => Looked::Other,
    })
}

/// Calls `each` with every name of a directory that is Unicode, and whether it is a directory's. Links are left out:
/// they are not served.
#[allow(unsafe_code)]
pub fn names(directory: File, mut each: impl FnMut(&str, bool)) -> io::Result<()> {
    use files::FILE_ID_BOTH_DIR_INFO as Entry;
    use std::mem::offset_of;
    // Numbers, so that entries are aligned.
    let mut room = vec![0_u64; 8 * 1024];
    loop {
        let bytes = size_of_val(&room[..]);
        // SAFETY: the room is as large as said, and the handle is open.
        let more = unsafe {
            let class = files::FileIdBothDirectoryInfo;
            files::GetFileInformationByHandleEx(
                directory.as_raw_handle(),
                class,
                room.as_mut_ptr().cast(),
                bytes as u32,
            )
        };
        if more == 0 {
            let error = io::Error::last_os_error();
            let ended = error.raw_os_error() == Some(base::ERROR_NO_MORE_FILES.cast_signed());
            return if ended { Ok(()) } else { Err(error) };
        }
        let mut at = 0;
        loop {
            assert!(at + size_of::<Entry>() <= bytes, "the system's entries lie in the room that it was given");
            // SAFETY: entries begin at aligned offsets, and this one lies in the room; see above.
            let entry = unsafe { &*room.as_ptr().byte_add(at).cast::<Entry>() };
            let (from, length) = (at + offset_of!(Entry, FileName), entry.FileNameLength as usize);
            assert!(from + length <= bytes, "so do their names");
            // SAFETY: the name lies in the room, in whole units.
            let name = unsafe { std::slice::from_raw_parts(room.as_ptr().byte_add(from).cast::<u16>(), length / 2) };
            let is_link = entry.FileAttributes & files::FILE_ATTRIBUTE_REPARSE_POINT != 0;
            if let (Ok(text), false) = (String::from_utf16(name), is_link) {
                each(&text, entry.FileAttributes & files::FILE_ATTRIBUTE_DIRECTORY != 0);
            }
            match entry.NextEntryOffset {
                0 => break,
                next => at += next as usize,
            }
        }
    }
}

/// Reads from `offset` on. Windows does not tell what it has cached.
pub fn read(file: &File, into: &mut [u8], offset: u64, waits: bool) -> io::Result<usize> {
    if !waits {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    wharf::blocking(|| file.seek_read(into, offset))
}

/// There is no such name.
pub fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

pub fn status_of(error: &io::Error) -> Status {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::NotFound | Kind::NotADirectory | Kind::InvalidFilename => status::NOT_FOUND,
        Kind::PermissionDenied => status::FORBIDDEN,
        _ if error.raw_os_error() == Some(base::ERROR_SHARING_VIOLATION.cast_signed()) => status::UNAVAILABLE,
        _ if system::scarce(error).is_some() => {
            log::warn!("a file cannot be opened: {error}; {} or lower --max-sessions", system::RAISE_LIMIT);
            status::UNAVAILABLE
        }
        _ => {
            log::warn!("a file cannot be opened: {error}");
            status::INTERNAL
        }
    }
}
