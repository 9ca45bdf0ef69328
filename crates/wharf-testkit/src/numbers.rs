//! What the system calls its errors.

#![allow(missing_docs, reason = "the names are the system's")]

#[cfg(unix)]
mod system {
    pub const EACCES: i32 = 13;
    pub const EBUSY: i32 = 16;
    pub const EPIPE: i32 = 32;
    pub const EINVAL: i32 = 22;
    pub const EDESTADDRREQ: i32 = 89;
    pub const EMSGSIZE: i32 = 90;
    pub const EADDRNOTAVAIL: i32 = 99;
    pub const ECONNABORTED: i32 = 103;
    pub const ECONNRESET: i32 = 104;
    pub const EISCONN: i32 = 106;
    pub const ENOTCONN: i32 = 107;
    pub const ESHUTDOWN: i32 = 108;
    pub const ECONNREFUSED: i32 = 111;
    pub const ECANCELED: i32 = 125;
}

#[cfg(windows)]
mod system {
    pub const EACCES: i32 = 5;
    pub const EBUSY: i32 = 170;
    pub const EPIPE: i32 = 109;
    pub const EINVAL: i32 = 10022;
    pub const EDESTADDRREQ: i32 = 10057;
    pub const EMSGSIZE: i32 = 10040;
    pub const EADDRNOTAVAIL: i32 = 10049;
    pub const ECONNABORTED: i32 = 10053;
    pub const ECONNRESET: i32 = 10054;
    pub const EISCONN: i32 = 10056;
    pub const ENOTCONN: i32 = 10057;
    pub const ESHUTDOWN: i32 = 10058;
    pub const ECONNREFUSED: i32 = 10061;
    pub const ECANCELED: i32 = 995;
}

pub use system::*;
