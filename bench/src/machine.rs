//! What a figure stands with: command, kernel, processor, versions. And where things run: where there are two
//! processors, the servers run on the first and the load generator on the second, so that neither takes the other's
//! time; and in a network of their own, whose congestion control is Reno: BBR paces, and what it paces it does not
//! cost.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::read_to_string;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Set in the lab that runs in its own network, so that it does not enter another.
const OWN_NETWORK: &str = "WHARF_BENCH_OWN_NETWORK";
const CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// One line each, before the figures.
pub fn print(networked: bool) {
    let kernel = rustix::system::uname();
    let cpu = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    println!("command     {}", command());
    println!("kernel      Linux {}", kernel.release().to_string_lossy());
    println!("processors  {} x {}", processors(), model.trim_start_matches(['\t', ' ', ':']));
    if networked {
        let congestion = read_to_string(CONGESTION).unwrap_or_default();
        let network = if in_own_network() { "a network of its own" } else { "the machine's network" };
        println!("congestion  {} ({network})", congestion.trim());
    }
    println!("versions    {}", versions(networked).join(", "));
    print_load();
    println!();
}

/// How busy the machine was, by others too.
pub fn print_load() {
    let load = read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load        {} (1 minute)", load.split(' ').next().unwrap_or("unknown"));
}

fn command() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    format!("cargo run --release -p wharf-bench -- {}", arguments.join(" "))
}

/// From the lock files that the programs were built with.
fn versions(networked: bool) -> Vec<String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut versions = vec![format!("wharf {}", env!("CARGO_PKG_VERSION"))];
    if networked {
        versions.extend(locked(&here.join("peers/Cargo.lock"), "tokio"));
    } else {
        versions.extend(locked(&here.join("../Cargo.lock"), "crossbeam-channel"));
    }
    let rustc = Command::new("rustc").arg("--version").stderr(Stdio::null()).output();
    versions.extend(rustc.ok().map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()));
    versions
}

fn locked(file: &Path, package: &str) -> Option<String> {
    let lock = read_to_string(file).ok()?;
    let (_, rest) = lock.split_once(&format!("name = \"{package}\"\nversion = \""))?;
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
    let setup = format!("ip link set lo up && echo reno > {CONGESTION}");
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

/// As many descriptors as the system lets us have: a thousand connections to each of several servers.
pub fn allow_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// Servers that are started now run on the first processor.
pub fn for_servers() {
    pin(0);
}

/// The calling thread runs on the second processor, if there is one.
pub fn for_the_generator() {
    pin(1);
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
