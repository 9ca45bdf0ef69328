//! The peers: programs of the workspace in `peers/`, built when a scenario needs them, and one in C++ beside them,
//! where there is a compiler.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Where the peers were built.
static PEERS: OnceLock<PathBuf> = OnceLock::new();

/// Builds what is not built yet; returns what could not be, and why.
pub fn build(target: Option<&Path>) -> io::Result<Vec<String>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
    let target = target.map_or_else(|| directory.join("target"), Path::to_owned);
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "--locked", "--manifest-path"])
        .arg(directory.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .status()?;
    if !status.success() {
        return Err(io::Error::other("the peers could not be built; see cargo's message above"));
    }
    let programs = target.join("release");
    let missing = match asio(&directory, &programs) {
        Ok(()) => Vec::new(),
        Err(error) => vec![format!("asio is missing: {error}")],
    };
    PEERS.get_or_init(|| programs);
    Ok(missing)
}

/// Builds this workspace's own program, `wharf`, beside the lab: it copies and serves files. A lab that is not a
/// release takes what there is.
pub fn build_wharf() -> io::Result<()> {
    let lab = std::env::current_exe()?;
    if lab.parent().is_none_or(|folder| !folder.ends_with("release")) {
        return Ok(());
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "--locked", "-p", "wharf-cli", "--manifest-path"])
        .arg(manifest)
        .status()?;
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other("the program wharf could not be built; see cargo's message above")),
    }
}

/// A peer's program, if it was built.
pub fn program(name: &str) -> Option<PathBuf> {
    let program = PEERS.get()?.join(name);
    program.exists().then_some(program)
}

/// The one that cargo does not know, by its own script.
fn asio(directory: &Path, programs: &Path) -> io::Result<()> {
    let (source, program) = (directory.join("asio/asio.cpp"), programs.join("asio"));
    let changed = |path: &Path| std::fs::metadata(path).and_then(|data| data.modified());
    if changed(&program).is_ok_and(|built| changed(&source).is_ok_and(|written| written < built)) {
        return Ok(());
    }
    let output = Command::new("sh").arg(directory.join("build-asio")).arg(&program).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(why(&String::from_utf8_lossy(&output.stderr))))
}

/// The likely cause, and what to do.
fn why(said: &str) -> String {
    let missing = said.lines().any(|line| line.contains("not found") || line.contains("No such file"));
    match said.lines().find(|line| line.contains("error")).or(said.lines().next()) {
        Some(line) if line.contains("asio.hpp") && missing => {
            "its headers are not installed (Debian: apt-get install libasio-dev)".into()
        }
        Some(line) if line.contains("g++") && missing => "g++ is not installed (Debian: apt-get install g++)".into(),
        Some(line) => line.to_owned(),
        None => "its script said nothing".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_remedy() {
        let header = "In file included from x\necho.cpp:3:10: fatal error: asio.hpp: No such file or directory\n";
        assert!(why(header).contains("libasio-dev"));
        assert!(why("build-asio: 5: exec: g++: not found\n").contains("apt-get install g++"));
        assert_eq!(why("echo.cpp:9:1: error: expected ;\n"), "echo.cpp:9:1: error: expected ;");
    }
}
