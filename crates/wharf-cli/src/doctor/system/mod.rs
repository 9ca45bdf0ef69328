//! What there is to look at differs by system: a file for each, chosen here. Each offers `findings`.

#[cfg(unix)]
mod linux;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub use linux::findings;
#[cfg(windows)]
pub use windows::findings;
