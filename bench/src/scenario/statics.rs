//! Static files over HTTP/1.1: `wharf serve files` beside nginx with one worker, `sendfile` on, no access log and no
//! cache of open files. wrk is the load: 64 connections that ask again as soon as they have got all.
//!
//! Both servers run on the first processor and wrk on the second. nginx comes as it is in Debian.

use crate::lab::Lab;
use crate::machine::Place;
use crate::measure::{Plan, Sample, all_in_turns, ratios, rows};
use crate::process::program;
use crate::rows::{AGAIN, Goal, Report, Wanted};
use crate::stats::median;
use crate::system::{Server, System};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SIZES: [(&str, usize); 4] = [("1 KiB", 1024), ("16 KiB", 16 << 10), ("128 KiB", 128 << 10), ("1 MiB", 1 << 20)];

pub fn run(lab: &Lab) -> io::Result<Report> {
    let mut report = Report::default();
    let Some(wharf) = program("wharf") else {
        report.notes.push("the program wharf is not built: cargo build --release -p wharf-cli".into());
        return Ok(report);
    };
    for (name, package) in [("nginx", "nginx"), ("wrk", "wrk")] {
        if !crate::process::has(name, "-v") {
            report.notes.push(format!("{name} is missing (Debian: apt-get install {package}): nothing was measured"));
            return Ok(report);
        }
    }
    let folder = crate::process::Folder::new()?;
    for (name, bytes) in SIZES {
        std::fs::write(folder.path().join(name.replace(' ', "")), vec![b'x'; bytes])?;
    }
    let folder = folder.path();
    let directory = folder.to_string_lossy();
    Place::Apart.for_servers();
    let own = |name| System::other(name, &wharf, &["serve", "files", &directory, "--listen", "127.0.0.1:0"]).start();
    let servers = [own("wharf serve files")?, own(AGAIN)?, nginx(folder)?];
    Place::Apart.for_the_generator();
    let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
    // wrk counts in whole seconds, so a quick run has room for one size.
    for (size, _) in &SIZES[lab.pick(1..2, 0..4)] {
        let path = size.replace(' ', "");
        lab.case(size);
        for server in &servers {
            wrk(server, &path)?; // warm
        }
        let samples = all_in_turns(lab, servers.len(), Plan::within(25.0), |at| wrk(&servers[at], &path))?;
        report.rows.extend(rows("static", size, &names, &samples));
        let cpu = median(&ratios(&samples[0], &samples[2], |sample| sample.cpu_us_per_message));
        let rate = median(&ratios(&samples[0], &samples[2], |sample| sample.messages_per_second));
        report.goals.push(Goal::new(format!("{size}: cpu of nginx's"), cpu, Wanted::AtMost(1.0)));
        report.goals.push(Goal::new(format!("{size}: rate of nginx's"), rate, Wanted::AtLeast(1.0)));
    }
    Ok(report)
}

/// nginx says nothing of where it listens, so it is given a port that was free just before.
fn nginx(folder: &Path) -> io::Result<Server> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let place = folder.display();
    let file = folder.join(".nginx.conf");
    let configuration = format!(
        "daemon off; master_process off; worker_processes 1; pid {place}/.nginx.pid; error_log stderr crit;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; default_type text/plain;\n\
         client_body_temp_path {place}/.body; proxy_temp_path {place}/.proxy; fastcgi_temp_path {place}/.fastcgi;\n\
         uwsgi_temp_path {place}/.uwsgi; scgi_temp_path {place}/.scgi;\n\
         server {{ listen {address}; root {place}; }} }}\n"
    );
    std::fs::File::create(&file)?.write_all(configuration.as_bytes())?;
    let arguments = ["-c", &file.to_string_lossy(), "-p", &folder.to_string_lossy()].map(str::to_owned);
    let server = Server::silent("nginx", Path::new("nginx"), &arguments, address)?;
    wait_for(address)?;
    Ok(server)
}

fn wait_for(address: SocketAddr) -> io::Result<()> {
    let until = Instant::now() + Duration::from_secs(10);
    while let Err(error) = TcpStream::connect(address) {
        if Instant::now() > until {
            return Err(io::Error::new(error.kind(), format!("nginx does not answer at {address}: {error}")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// One second of load.
fn wrk(server: &Server, path: &str) -> io::Result<Sample> {
    let before = server.usage();
    let output = Command::new("wrk")
        .args(["-t1", "-c64", "-d1s"])
        .arg(format!("http://{}/{path}", server.address))
        .stderr(Stdio::null())
        .output()?;
    let used = server.usage().since(before);
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        return Err(io::Error::other(format!("{}: not all requests were answered well:\n{text}", server.name)));
    }
    let number = |line: &str, end: &str| -> Option<f64> {
        let line = text.lines().find(|candidate| candidate.contains(line))?;
        line.split(end).find(|part| !part.trim().is_empty())?.split_whitespace().last()?.parse().ok()
    };
    let wrong = || io::Error::other(format!("wrk said nothing of its requests:\n{text}"));
    let count = number("requests in", " requests in").ok_or_else(wrong)?;
    let rate = number("Requests/sec:", "Requests/sec:").ok_or_else(wrong)?;
    Ok(Sample {
        messages_per_second: Some(rate),
        cpu_us_per_message: Some(used.cpu_us() / count),
        switches_per_message: Some(used.switches as f64 / count),
        wakeups_per_message: Some(used.wakeups as f64 / count),
        ..Sample::default()
    })
}
