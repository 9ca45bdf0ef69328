//! Opens what a name below the directory stands for, and nothing outside of it: a file for each system, chosen here.
//! Both offer the same names: `Root`, `Handle`, `Error`, `Looked`, `look_at`, `names`, `read`, `is_missing`,
//! `status_of`.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub use unix::*;
#[cfg(windows)]
pub use windows::*;
