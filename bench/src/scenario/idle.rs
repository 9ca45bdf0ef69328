//! What an idle server does in two seconds: its context switches and processor time, after it has served something.

use crate::load::Load;
use crate::process::Server;
use crate::rows::Row;
use std::io;
use std::time::Duration;

pub fn run() -> io::Result<Vec<Row>> {
    let servers = [
        Server::own("wharf", &["serve-port", "--workers", "3", "--concurrency", "2"])?,
        Server::own("wharf sessions", &["serve-session", "--workers", "3", "--concurrency", "2"])?,
        Server::peer("tokio multi_thread(2)", "tokio-echo", &["2"])?,
    ];
    servers
        .iter()
        .map(|server| {
            let mut load = Load::connect(server.address, 64, 32)?;
            load.slice(Duration::from_millis(200))?;
            // The dead-man's timer may go off once more after the last message.
            std::thread::sleep(Duration::from_millis(500));
            let before = server.usage();
            std::thread::sleep(Duration::from_secs(2));
            let after = server.usage();
            println!(
                "{}: {} context switches and {} us of processor time in 2 s with 64 idle connections",
                server.name,
                after.1 - before.1,
                (after.0 - before.0) / 1000
            );
            Ok(Row {
                scenario: "idle",
                case: "2 s, 64 connections".into(),
                system: server.name.clone(),
                cpu_us_per_message: Some((after.0 - before.0) as f64 / 1000.0),
                switches_per_message: Some((after.1 - before.1) as f64),
                rounds: 1,
                ..Row::default()
            })
        })
        .collect()
}
