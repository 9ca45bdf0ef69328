//! Servers as processes of their own, ended by their id whatever happens to the lab: by us when we are done or fail,
//! and by the kernel when we are killed.

use rustix::process::{Signal, set_parent_process_death_signal};
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// Where the peers were built.
static PEERS: OnceLock<PathBuf> = OnceLock::new();

/// A running server.
pub struct Server {
    pub name: String,
    pub address: SocketAddr,
    running: Running,
}

/// A child, for as long as somebody holds it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What all threads of a server have used so far.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    pub cpu_nanos: u64,
    pub switches: u64,
}

impl Usage {
    pub fn cpu_us_since(self, before: Usage) -> f64 {
        (self.cpu_nanos - before.cpu_nanos) as f64 / 1000.0
    }

    pub fn switches_since(self, before: Usage) -> f64 {
        (self.switches - before.switches) as f64
    }
}

impl Server {
    /// The lab itself, as a server.
    pub fn own(name: &str, arguments: &[&str]) -> io::Result<Server> {
        Server::start(name, &std::env::current_exe()?, arguments)
    }

    /// Another build of the lab, as a server.
    pub fn other(name: &str, program: &Path, arguments: &[&str]) -> io::Result<Server> {
        Server::start(name, program, arguments)
    }

    /// At port level, with so many workers of which so many may run at a time.
    pub fn port(name: &str, workers: usize, limit: usize) -> io::Result<Server> {
        Server::own(name, &["serve-port", "--", &workers.to_string(), &limit.to_string()])
    }

    /// With sessions.
    pub fn session(name: &str, workers: usize, limit: usize) -> io::Result<Server> {
        Server::own(name, &["serve-session", "--", &workers.to_string(), &limit.to_string()])
    }

    /// A peer, which `build_peers` has built.
    pub fn peer(name: &str, program: &str, arguments: &[&str]) -> io::Result<Server> {
        let peers = PEERS.get().ok_or_else(|| io::Error::other("the peers are not built"))?;
        Server::start(name, &peers.join(program), arguments)
    }

    /// A program that does not say where it listens.
    pub fn silent(name: &str, program: &Path, arguments: &[&str], address: SocketAddr) -> io::Result<Server> {
        let child = command(program, arguments)?.stdout(Stdio::null()).spawn()?;
        Ok(Server { name: name.into(), address, running: Running(child) })
    }

    fn start(name: &str, program: &Path, arguments: &[&str]) -> io::Result<Server> {
        let mut child = command(program, arguments)?.stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take();
        let running = Running(child);
        let mut line = String::new();
        BufReader::new(output.ok_or_else(|| io::Error::other("no output"))?).read_line(&mut line)?;
        let address = line.trim().rsplit(' ').next().and_then(|address| address.parse().ok());
        let address =
            address.ok_or_else(|| io::Error::other(format!("{name} did not say where it listens: {line:?}")))?;
        Ok(Server { name: name.into(), address, running })
    }

    pub fn usage(&self) -> Usage {
        usage(&format!("/proc/{}/task", self.running.0.id()))
    }
}

/// The lab, about to become `program`.
fn command(program: &Path, arguments: &[&str]) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["launch", "--"]).arg(program).args(arguments).stdin(Stdio::null());
    Ok(command)
}

/// Whether a program is there, and answers a question.
pub fn has(program: &str, question: &str) -> bool {
    Command::new(program).arg(question).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// A program of this workspace: beside the lab, where cargo puts it.
pub fn program(name: &str) -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?.with_file_name(name);
    program.exists().then_some(program)
}

/// A folder of our own, below the one for temporary files; gone with everything in it when it is dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> io::Result<Folder> {
        let path = std::env::temp_dir().join(format!("wharf-bench-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Folder(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The lab's own threads' context switches.
pub fn own_switches() -> u64 {
    usage("/proc/self/task").switches
}

fn usage(tasks: &str) -> Usage {
    let mut total = Usage::default();
    for task in std::fs::read_dir(tasks).into_iter().flatten().flatten() {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let schedstat = read("schedstat");
        total.cpu_nanos += schedstat.split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        for line in read("status").lines().filter(|line| line.contains("ctxt_switches")) {
            total.switches += line.rsplit('\t').next().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
        }
    }
    total
}

/// Becomes `command`, which the kernel ends when the lab does.
pub fn launch(command: &[String]) -> io::Result<()> {
    let (program, arguments) = command.split_first().ok_or_else(|| io::Error::other("launch what?"))?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    Err(Command::new(program).args(arguments).exec())
}

/// Builds the peers, each a program of the workspace in `peers/`.
pub fn build_peers(target: Option<&Path>) -> io::Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
    let target = target.map_or_else(|| directory.join("target"), Path::to_owned);
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "--quiet", "--locked", "--manifest-path"])
        .arg(directory.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .status()?;
    if !status.success() {
        return Err(io::Error::other("the peers could not be built; see cargo's message above"));
    }
    PEERS.get_or_init(|| target.join("release"));
    Ok(())
}
