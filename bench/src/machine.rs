//! What a figure stands with: kernel, processor, command. And where things run: where there are two processors, the
//! servers run on the first and the load generator on the second, so that neither takes the other's time.

use std::fs::read_to_string;

/// One line each, before the figures.
pub fn print() {
    let kernel = rustix::system::uname();
    let cpu = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
        let congestion = read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
    println!("command     {}", std::env::args().skip(1).collect::<Vec<_>>().join(" "));
    println!("kernel      Linux {}", kernel.release().to_string_lossy());
    println!("processors  {} x {}", processors(), model.trim_start_matches(['\t', ' ', ':']));
    println!("congestion  {}", congestion.trim());
    println!("wharf       {}\n", env!("CARGO_PKG_VERSION"));
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
fn processors() -> usize {
    read_to_string("/proc/cpuinfo").unwrap_or_default().lines().filter(|line| line.starts_with("processor")).count()
}

fn pin(processor: usize) {
    if processors() < 2 {
        return;
    }
    let mut set = rustix::thread::CpuSet::new();
    set.set(processor);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        eprintln!("wharf-bench: cannot choose processor {processor} ({error}); the figures will be noisier");
    }
}
