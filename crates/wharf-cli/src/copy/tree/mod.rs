//! A directory, and what is below it without following links: a link that somebody puts there, before the copy or
//! meanwhile, leads nothing out of it.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(super) use unix::Tree;
#[cfg(windows)]
pub(super) use windows::Tree;

use std::ffi::OsString;

/// A name in a directory.
pub(super) struct Found {
    pub(super) name: OsString,
    pub(super) kind: Kind,
}

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    Link,
    /// What has a content. It may turn out not to be a regular file when it is opened.
    File,
    /// What has no content to copy, in words.
    #[cfg_attr(windows, expect(dead_code, reason = "nothing that lies in a directory there"))]
    Special(&'static str),
}
