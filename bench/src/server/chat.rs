//! Each line to every member, the sender too, with a group of sessions.

use super::{Serve, ready};
use std::io;
use wharf::signal::SIGTERM;
use wharf::{Buffer, Workers};
use wharf_session::{
    Framed, FramedLink, FramedSession, Group, Lines, Link, Service, ServiceOptions, Session, SlowConsumer,
};

const LINE_BYTES_MAX: usize = 64 * 1024;
const OUTBOX_BYTES: usize = 256 * 1024;

fn service_options(options: &Serve) -> ServiceOptions {
    let slow = if options.drop_oldest { SlowConsumer::DropOldest } else { SlowConsumer::Wait };
    Service::options().workers(Workers::exactly(options.workers)).concurrency(options.limit).outbox(OUTBOX_BYTES, slow)
}

/// A broadcast for each line.
pub fn lines(options: &Serve) -> io::Result<()> {
    struct Member(Group);
    impl FramedSession for Member {
        type Codec = Lines;

        fn opened(&mut self, link: &FramedLink<Lines>) {
            self.0.join(link);
        }

        fn frame(&mut self, _link: &FramedLink<Lines>, line: &[u8]) {
            let mut whole = Vec::with_capacity(line.len() + 1);
            whole.extend_from_slice(line);
            whole.push(b'\n');
            self.0.broadcast(&whole);
        }
    }
    let service = service_options(options).start()?;
    let room = Group::new();
    let address =
        service.listen("127.0.0.1:0", move |_| Framed::new(Lines::new(LINE_BYTES_MAX), Member(room.clone())))?;
    ready(address)?;
    service.wait_for_signal(&[SIGTERM]).map(drop)
}

/// One broadcast for all whole lines that came together, as `wharf serve chat` does it.
pub fn chunks(options: &Serve) -> io::Result<()> {
    struct Member {
        room: Group,
        begun: Vec<u8>,
    }
    impl Session for Member {
        fn opened(&mut self, link: &Link) {
            self.room.join(link);
        }

        fn received(&mut self, _link: &Link, data: Buffer) {
            if self.begun.is_empty() && data.ends_with(b"\n") {
                self.room.broadcast(&data);
                return;
            }
            self.begun.extend_from_slice(&data);
            let Some(newline) = self.begun.iter().rposition(|&byte| byte == b'\n') else { return };
            let rest = self.begun.split_off(newline + 1);
            self.room.broadcast(&std::mem::replace(&mut self.begun, rest));
        }
    }
    let service = service_options(options).start()?;
    let room = Group::new();
    ready(service.listen("127.0.0.1:0", move |_| Member { room: room.clone(), begun: Vec::new() })?)?;
    service.wait_for_signal(&[SIGTERM]).map(drop)
}
