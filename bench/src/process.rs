//! Servers as processes of their own, ended by their id whatever happens to the lab.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running server.
pub struct Server {
    pub name: String,
    pub address: SocketAddr,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// The lab itself, as a server.
    pub fn own(name: &str, arguments: &[&str]) -> io::Result<Server> {
        Server::start(name, &std::env::current_exe()?, arguments)
    }

    /// A peer, which is built first.
    pub fn peer(name: &str, program: &str, arguments: &[&str]) -> io::Result<Server> {
        Server::start(name, &build_peers()?.join(program), arguments)
    }

    fn start(name: &str, program: &Path, arguments: &[&str]) -> io::Result<Server> {
        let mut child = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let output = child.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
        BufReader::new(output).read_line(&mut line)?;
        let address = line.trim().rsplit(' ').next().and_then(|address| address.parse().ok());
        let mut server = Server { name: name.into(), address: "127.0.0.1:0".parse().expect("an address"), child };
        server.address =
            address.ok_or_else(|| io::Error::other(format!("{name} did not say where it listens: {line:?}")))?;
        Ok(server)
    }

    /// Processor time in nanoseconds and context switches of all threads so far.
    pub fn usage(&self) -> (u64, u64) {
        let tasks = format!("/proc/{}/task", self.child.id());
        let mut total = (0, 0);
        for task in std::fs::read_dir(tasks).into_iter().flatten().flatten() {
            let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let schedstat = read("schedstat");
            total.0 += schedstat.split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
            for line in read("status").lines().filter(|line| line.contains("ctxt_switches")) {
                total.1 += line.rsplit('\t').next().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
            }
        }
        total
    }
}

fn build_peers() -> io::Result<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
    let target = directory.join("target");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "--quiet", "--manifest-path"])
        .arg(directory.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .status()?;
    if !status.success() {
        return Err(io::Error::other("the peers could not be built; see cargo's message above"));
    }
    Ok(target.join("release"))
}
