//! A chat server of sessions: everything goes to everybody.
//!
//! `cargo run --example chat -- 127.0.0.1:7000`, then `nc 127.0.0.1 7000` in two terminals. Ctrl+C ends it.
//!
//! What the port level leaves to the program is done here: who is there, who is slow, who has gone.

use std::io::Write;
use std::time::Duration;
use wharf::Buffer;
use wharf::signal::SIGINT;
use wharf_session::{Closed, Group, Link, Service, Session, SlowConsumer};

struct Guest {
    room: Group,
}

impl Session for Guest {
    fn opened(&mut self, link: &Link) {
        self.room.broadcast(format!("* {} has come\n", link.peer()).as_bytes());
        self.room.join(link);
    }

    fn received(&mut self, _link: &Link, data: Buffer) {
        self.room.broadcast(&data);
    }

    fn closed(&mut self, link: &Link, reason: &Closed) {
        self.room.broadcast(format!("* {} has gone: {reason}\n", link.peer()).as_bytes());
    }
}

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".into());
    // A guest who does not read loses old messages, and holds up nobody.
    let service = Service::options().outbox(256 * 1024, SlowConsumer::DropOldest).start()?;
    let room = Group::new();
    let address = service.listen(address, move |_peer| Guest { room: room.clone() })?;
    let ctrl_c = service.signals(&[SIGINT])?;
    println!("listening on {address}");
    std::io::stdout().flush()?;
    ctrl_c.wait();
    let report = service.shutdown(Duration::from_secs(5));
    println!("{} sessions ended, {} of them cut off", report.graceful + report.aborted, report.aborted);
    Ok(())
}
