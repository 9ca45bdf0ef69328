//! Answers one request: from its path to a file, and from that to the bytes to send.

use super::listing;
use super::open::{self, Looked, Root};
use super::output::Output;
use super::path::{Target, resolve};
use super::request::{Method, Request};
use super::response::{self, Facts, Part};
use super::status::{Status, status};
use std::borrow::Cow;
use std::fs::File;

/// What is not longer is read behind its head and leaves with it in one call. Of what is longer the kernel sends the
/// pages it has, without a copy: above this that is cheaper.
pub const SMALL_BYTES_MAX: u64 = 16 * 1024;
/// What is served for a directory.
const INDEX: &str = "index.html";
/// A file that is truncated between its length and its bytes is looked at anew this many times.
const LOOKS: usize = 3;

/// What is served, and how.
#[derive(Debug)]
pub struct Site {
    pub root: Root,
    /// Directories without an index are listed.
    pub list: bool,
    /// Names that begin with a dot are served.
    pub hidden: bool,
}

/// An answer whose head, and what is small, is in the output.
#[derive(Debug)]
pub struct Answer {
    pub status: Status,
    /// Bytes behind the head that are in the output already.
    pub bytes: u64,
    /// What follows the output.
    pub file: Option<(File, Part)>,
}

impl Site {
    /// Answers a request. `close`: the connection ends behind it.
    pub fn answer(&self, request: &Request<'_>, close: bool, output: &mut Output) -> Answer {
        let refused = |status, field: &str, output: &mut Output| {
            let start = output.len();
            response::text(status, request.method, request.minor, close, field, output);
            Answer { status, bytes: content_bytes(output, start), file: None }
        };
        match request.method {
            Method::Get | Method::Head => {}
            Method::NotServed => return refused(status::METHOD_NOT_ALLOWED, "Allow: GET, HEAD\r\n", output),
            Method::Unknown => return refused(status::NOT_IMPLEMENTED, "", output),
        }
        let target = match resolve(request.target, self.hidden) {
            Ok(target) => target,
            Err(status) => return refused(status, "", output),
        };
        match self.find(&target) {
            Ok(Found::File { file, facts, name }) => self.file(request, file, facts, name, close, output),
            Ok(Found::DirectoryWithoutSlash) => {
                let location = format!("Location: {}\r\n", target.with_slash());
                refused(status::MOVED_PERMANENTLY, &location, output)
            }
            Ok(Found::List(page)) => {
                let start = output.len();
                let kind = ("text/html; charset=utf-8", "");
                let (method, minor) = (request.method, request.minor);
                response::content_of(status::OK, method, minor, close, kind, page.as_bytes(), output);
                Answer { status: status::OK, bytes: content_bytes(output, start), file: None }
            }
            Err(status) => {
                let field = if status == status::UNAVAILABLE { "Retry-After: 1\r\n" } else { "" };
                refused(status, field, output)
            }
        }
    }

    fn find<'a>(&self, target: &'a Target<'_>) -> Result<Found<'a>, Status> {
        let mut name = Cow::Borrowed(&*target.name);
        if target.is_directory {
            name = match &*target.name {
                "" => INDEX.into(),
                directory => format!("{directory}/{INDEX}").into(),
            };
        }
        let file = match self.root.file(&name) {
            Ok(file) => file,
            Err(error) if target.is_directory && open::is_missing(&error) => return self.without_index(&target.name),
            Err(error) => return Err(open::status_of(&error)),
        };
        match open::look_at(&file)? {
            Looked::Regular(facts) => Ok(Found::File { file: file.into(), facts, name }),
            Looked::Directory if !target.is_directory => Ok(Found::DirectoryWithoutSlash),
            Looked::Directory | Looked::Other => Err(status::FORBIDDEN),
        }
    }

    /// A directory that has no index, if there is one at all.
    fn without_index(&self, name: &str) -> Result<Found<'static>, Status> {
        let directory = self.root.directory(name).map_err(|error| open::status_of(&error))?;
        if !self.list {
            return Err(status::FORBIDDEN);
        }
        let listed = wharf::blocking(|| listing::names(directory, self.hidden));
        let (names, more) = listed.map_err(|error| open::status_of(&error))?;
        Ok(Found::List(listing::page(name, &names, more)))
    }

    fn file(
        &self,
        request: &Request<'_>,
        file: File,
        mut facts: Facts,
        name: Cow<'_, str>,
        close: bool,
        output: &mut Output,
    ) -> Answer {
        let start = output.len();
        for _ in 0..LOOKS {
            let (status, part) = response::file(request, &facts, &name, close, output);
            if part.length > SMALL_BYTES_MAX {
                return Answer { status, bytes: 0, file: Some((file, part)) };
            }
            match read(&file, part, output) {
                Ok(true) => {
                    let bytes = if part.length > 0 { part.length } else { content_bytes(output, start) };
                    return Answer { status, bytes, file: None };
                }
                Ok(false) => {}
                Err(error) => {
                    log::warn!("{name} cannot be read: {error}");
                    break;
                }
            }
            // It is shorter by now. Nothing of it has been sent, so what it is now can be.
            output.truncate(start);
            match open::look_at(&file) {
                Ok(Looked::Regular(now)) => facts = now,
                _ => break,
            }
        }
        output.truncate(start);
        response::text(status::INTERNAL, request.method, request.minor, close, "", output);
        Answer { status: status::INTERNAL, bytes: content_bytes(output, start), file: None }
    }
}

/// Bytes behind the head of the answer that begins at `start`. Only for the log, and only for answers that are text.
pub fn content_bytes(output: &Output, start: usize) -> u64 {
    let answer = &output.written()[start..];
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    (answer.len() - head) as u64
}

enum Found<'a> {
    File {
        file: File,
        facts: Facts,
        name: Cow<'a, str>,
    },
    DirectoryWithoutSlash,
    /// A page.
    List(String),
}

/// Reads a small part into the output; false where the file has become shorter.
fn read(file: &File, part: Part, output: &mut Output) -> std::io::Result<bool> {
    let length = usize::try_from(part.length).unwrap_or(usize::MAX);
    let into = output.space(length);
    let mut done = 0;
    // What the kernel has cached comes at once.
    let mut waits = false;
    while done < length {
        let offset = part.offset + done as u64;
        let rest = &mut into[done..];
        match open::read(file, rest, offset, waits) {
            Ok(0) if waits => return Ok(false),
            Ok(bytes) if bytes > 0 => done += bytes,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) if waits => return Err(error),
            // It has to wait; or the file system does not know the question, or has nothing more to say to it.
            _ => waits = true,
        }
    }
    output.grow(length);
    Ok(true)
}
