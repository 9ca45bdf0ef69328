//! What a figure stands with: kernel, processor, command.

use std::fs::read_to_string;

/// One line each, before the figures.
pub fn print() {
    let kernel = rustix::system::uname();
    let cpu = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let congestion = read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
    println!("command     {}", std::env::args().skip(1).collect::<Vec<_>>().join(" "));
    println!("kernel      Linux {}", kernel.release().to_string_lossy());
    println!("processors  {processors} x {}", model.trim_start_matches(['\t', ' ', ':']));
    println!("congestion  {}", congestion.trim());
    println!("wharf       {}\n", env!("CARGO_PKG_VERSION"));
}
