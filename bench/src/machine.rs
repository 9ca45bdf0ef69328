//! What a figure stands with: command, kernel, processor, versions. And where things run: where there are two
//! processors, the servers run on the first and the load generator on the second, so that neither takes the other's
//! time; and in a network of their own, whose congestion control is Reno: BBR paces, and what it paces it does not
//! cost.

use crate::rows::About;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::read_to_string;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use wharf::CompletionPort;

/// Set in the lab that runs in its own network, so that it does not enter another.
const OWN_NETWORK: &str = "WHARF_BENCH_OWN_NETWORK";
const CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
const PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// What stands with a scenario's figures.
pub fn about(quick: bool) -> About {
    let kernel = rustix::system::uname();
    let cpu = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let congestion = read_to_string(CONGESTION).unwrap_or_default();
    let network = if in_own_network() { "a network of its own" } else { "the machine's network" };
    About {
        command: command(),
        quick,
        kernel: format!("Linux {}", kernel.release().to_string_lossy()),
        processors: format!("{} x {}", processors(), model.trim_start_matches(['\t', ' ', ':'])),
        congestion: format!("{} ({network})", congestion.trim()),
        engine: engine(),
        versions: versions(),
        load: (load(), 0.0),
        ..About::default()
    }
}

/// One line each, before the figures.
pub fn print(about: &About) {
    println!("command     {}", about.command);
    println!("kernel      {}", about.kernel);
    println!("processors  {}", about.processors);
    println!("congestion  {}", about.congestion);
    println!("engine      {}", about.engine);
    println!("versions    {}", about.versions.join(", "));
    println!("load        {:.2} (1 minute)", about.load.0);
    println!();
}

/// How busy the machine was in the last minute, by others too.
pub fn load() -> f64 {
    let load = read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN)
}

fn command() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).map(|argument| shown(&argument)).collect();
    format!("cargo run --release -p wharf-bench -- {}", arguments.join(" "))
}

/// Where somebody's folders are is nobody's business.
fn shown(argument: &str) -> String {
    let path = Path::new(argument);
    match path.file_name() {
        Some(name) if path.is_absolute() => name.to_string_lossy().into_owned(),
        _ => argument.to_owned(),
    }
}

/// What a port says that it works with: for sockets, and for a file operation that has to wait.
fn engine() -> String {
    static ENGINE: OnceLock<String> = OnceLock::new();
    let ask = || -> std::io::Result<String> {
        let port = CompletionPort::<(), ()>::new()?;
        let path = std::env::temp_dir().join(format!("wharf-bench-engine-{}", std::process::id()));
        let file = port.open(&path, std::fs::OpenOptions::new().write(true).create(true).truncate(true), ())?;
        let asked = file.sync(()).map_err(std::io::Error::from).and_then(|_| Ok(port.get()?));
        std::fs::remove_file(&path)?;
        asked?;
        let stats = port.stats();
        Ok(format!("{} for sockets, {} for files", stats.engine, stats.files.unwrap_or("nothing")))
    };
    ENGINE.get_or_init(|| ask().unwrap_or_else(|error| format!("unknown: {error}"))).clone()
}

/// From the lock files that the programs were built with.
fn versions() -> Vec<String> {
    static VERSIONS: OnceLock<Vec<String>> = OnceLock::new();
    let ask = || {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut versions = vec![format!("wharf {}{}", env!("CARGO_PKG_VERSION"), commit())];
        for (file, packages) in [
            ("peers/Cargo.lock", &["tokio", "compio", "monoio", "glommio", "mio"][..]),
            ("../Cargo.lock", &["crossbeam-channel", "flume", "kanal", "io-uring"][..]),
        ] {
            let lock = read_to_string(here.join(file)).unwrap_or_default();
            versions.extend(packages.iter().filter_map(|package| locked(&lock, package)));
        }
        for program in ["rustc", "g++", "fio"] {
            let output = Command::new(program).arg("--version").stderr(Stdio::null()).output();
            let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
            versions.extend(text.lines().next().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
        }
        versions
    };
    VERSIONS.get_or_init(ask).clone()
}

/// Which state of the source, where git knows.
fn commit() -> String {
    let output = Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => format!(" ({})", String::from_utf8_lossy(&output.stdout).trim()),
        _ => String::new(),
    }
}

fn locked(lock: &str, package: &str) -> Option<String> {
    // Of several versions the newest, which is the one that we ask for: an older one is somebody else's.
    let (_, rest) = lock.rsplit_once(&format!("name = \"{package}\"\nversion = \""))?;
    Some(format!("{package} {}", rest.split('"').next()?))
}

fn in_own_network() -> bool {
    std::env::var_os(OWN_NETWORK).is_some()
}

/// Starts the lab again in a network namespace with Reno, where the system permits it; else says so and goes on. Needs
/// `unshare` (util-linux) and `ip` (iproute2), and to be root or allowed user namespaces.
pub fn enter_own_network() {
    if in_own_network() {
        return;
    }
    // Crowds of connections need more ports than the usual range has.
    let setup = format!("ip link set lo up && echo reno > {CONGESTION} && echo '2000 65000' > {PORTS}");
    let Ok(program) = std::env::current_exe() else { return };
    for how in [&["--net"][..], &["--map-root-user", "--net"]] {
        let tried = Command::new("unshare").args(how).args(["sh", "-c", &setup]).stderr(Stdio::null()).status();
        if tried.is_ok_and(|status| status.success()) {
            // Returns only when it has failed.
            let _ = Command::new("unshare")
                .args(how)
                .args(["sh", "-c", &format!("{setup} && exec \"$0\" \"$@\"")])
                .arg(&program)
                .args(std::env::args_os().skip(1))
                .env(OWN_NETWORK, "1")
                .exec();
        }
    }
    eprintln!("wharf-bench: no network namespace here; the congestion control below is the machine's");
}

/// Short sleeps of this thread end when they should, and not up to 50 us later so that several wake-ups become one.
pub fn exact_timers() {
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}

/// As many descriptors as the system lets us have: a thousand connections to each of several servers.
pub fn allow_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// How many connections one process may have beside the few descriptors that it needs otherwise.
pub fn connections_most() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
    usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(300)
}

/// Where the servers and the generator run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Servers on the first processor, the generator on the second.
    Apart,
    /// Everybody anywhere: for servers that are to use both processors.
    Anywhere,
}

impl Place {
    /// Servers that are started now run there.
    pub fn for_servers(self) {
        match self {
            Place::Apart => pin(0),
            Place::Anywhere => unpin(),
        }
    }

    /// The calling thread, as the generator, runs there.
    pub fn for_the_generator(self) {
        match self {
            Place::Apart => pin(1),
            Place::Anywhere => unpin(),
        }
    }
}

/// As many as the machine has, not as many as this thread may use.
pub fn processors() -> usize {
    read_to_string("/proc/cpuinfo").unwrap_or_default().lines().filter(|line| line.starts_with("processor")).count()
}

/// The calling thread, and what it starts, run on that processor, where there are two.
pub fn pin(processor: usize) {
    if processors() < 2 {
        return;
    }
    let mut set = rustix::thread::CpuSet::new();
    set.set(processor);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        eprintln!("wharf-bench: cannot choose processor {processor} ({error}); the figures will be noisier");
    }
}

/// The calling thread runs anywhere again.
pub fn unpin() {
    let mut set = rustix::thread::CpuSet::new();
    (0..processors()).for_each(|processor| set.set(processor));
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_the_lock_files() {
        let lock = "[[package]]\nname = \"flume\"\nversion = \"0.11.1\"\nsource = \"x\"\n";
        assert_eq!(locked(lock, "flume").as_deref(), Some("flume 0.11.1"));
        assert_eq!(locked(lock, "lume"), None);
        let two = format!("{lock}\n[[package]]\nname = \"flume\"\nversion = \"0.12.0\"\n");
        assert_eq!(locked(&two, "flume").as_deref(), Some("flume 0.12.0"));
    }

    #[test]
    fn the_command_tells_nothing_of_the_machines_folders() {
        assert_eq!(shown("/a/folder/rows.json"), "rows.json");
        assert_eq!(shown("target/rows.json"), "target/rows.json");
        assert_eq!(shown("--quick"), "--quick");
    }

    #[test]
    fn what_stands_with_the_figures_is_known() {
        let about = about(true);
        assert!(about.kernel.starts_with("Linux ") && about.engine.contains("for sockets"), "{about:?}");
        assert!(about.versions.iter().any(|version| version.starts_with("crossbeam-channel ")), "{about:?}");
    }
}
