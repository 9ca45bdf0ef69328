//! What the suite asks of the system beyond what every Unix has. Chosen here.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod other;

#[cfg(target_os = "linux")]
pub use linux::*;
#[cfg(not(target_os = "linux"))]
pub use other::*;

/// Descriptors that the process has open.
pub fn descriptors() -> std::io::Result<usize> {
    Ok(std::fs::read_dir("/dev/fd")?.count())
}
