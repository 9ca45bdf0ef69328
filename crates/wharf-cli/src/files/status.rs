//! The statuses this server answers with.

/// A status, and what is said to whoever reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    pub code: u16,
    pub reason: &'static str,
    /// Cause and remedy: the text of an answer that has no other content.
    pub because: &'static str,
}

macro_rules! statuses {
    ($($name:ident $code:literal $reason:literal $because:literal)*) => {
        /// Each of them.
        pub mod status {
            use super::Status;
            $(pub const $name: Status = Status { code: $code, reason: $reason, because: $because };)*
            #[cfg(test)]
            pub const ALL: &[Status] = &[$($name),*];
        }
    };
}

statuses! {
    OK 200 "OK" ""
    PARTIAL_CONTENT 206 "Partial Content" ""
    MOVED_PERMANENTLY 301 "Moved Permanently" "this is a directory, whose name ends with a slash"
    NOT_MODIFIED 304 "Not Modified" ""
    BAD_REQUEST 400 "Bad Request" "this is no valid HTTP request, or its path is no name of a file"
    FORBIDDEN 403 "Forbidden" "this may not be read, is no regular file, or is a directory without index.html"
    NOT_FOUND 404 "Not Found" "there is no such file"
    METHOD_NOT_ALLOWED 405 "Method Not Allowed" "only GET and HEAD are served"
    TIMEOUT 408 "Request Timeout" "the request took too long to arrive"
    PRECONDITION_FAILED 412 "Precondition Failed" "the file is not the one the request names"
    CONTENT_TOO_LARGE 413 "Content Too Large" "requests for files need no content"
    TARGET_TOO_LONG 414 "URI Too Long" "the request line is too long"
    RANGE_NOT_SATISFIABLE 416 "Range Not Satisfiable" "the range begins behind the end of the file"
    FIELDS_TOO_LARGE 431 "Request Header Fields Too Large" "the head of the request is too long, or has too many fields"
    INTERNAL 500 "Internal Server Error" "the file could not be read"
    NOT_IMPLEMENTED 501 "Not Implemented" "the method or the transfer coding is not known here"
    UNAVAILABLE 503 "Service Unavailable" "too much is under way; try again later"
    VERSION_NOT_SUPPORTED 505 "HTTP Version Not Supported" "HTTP/1.0 and HTTP/1.1 are spoken here"
}
