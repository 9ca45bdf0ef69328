//! The chat of the tutorials on completion ports: for each line a send to each member, with a copy of its own and a
//! packet of its own; the next line when all of them are done. Only the order of lines is looked after.

use super::{Serve, listening};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wharf::{Buffer, CompletionPort, Event, Packet, Workers};

const BUFFER_BYTES: usize = 16 * 1024;

type Port = CompletionPort<(), Option<Arc<Line>>>;
type Stream = wharf::Stream<(), Option<Arc<Line>>>;

/// A line on its way: whose it is, and to how many it still goes.
struct Line {
    speaker: Stream,
    missing: AtomicUsize,
}

#[derive(Default)]
struct Room {
    members: Mutex<HashMap<u64, Member>>,
}

struct Member {
    stream: Stream,
    begun: Vec<u8>,
    /// Lines that wait for the one before, and the buffer to go on receiving with when there is none left.
    lines: VecDeque<Vec<u8>>,
    buffer: Option<Buffer>,
}

pub fn pool(options: &Serve) -> io::Result<()> {
    let port: Port = listening(options.limit, (), None)?;
    let associate = port.clone();
    let room = Room::default();
    port.start(Workers::exactly(options.workers), move |packet| room.handle(&associate, packet))?.join();
    Ok(())
}

impl Room {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, port: &Port, packet: Packet<(), Option<Arc<Line>>>) {
        match packet.event {
            Event::Accepted { listener, result } => {
                let _ = listener.accept(None);
                if let Ok(stream) = result.and_then(|(socket, _)| Ok(port.associate(socket, ())?)) {
                    let _ = stream.set_nodelay(true);
                    let member =
                        Member { stream: stream.clone(), begun: Vec::new(), lines: VecDeque::new(), buffer: None };
                    self.lock().insert(stream.number(), member);
                    let _ = stream.recv(Buffer::with_capacity(BUFFER_BYTES), None);
                }
            }
            Event::Received { stream, buffer, result: Ok(1..) } => {
                if let Some(member) = self.lock().get_mut(&stream.number()) {
                    member.begun.extend_from_slice(&buffer);
                    while let Some(end) = member.begun.iter().position(|&byte| byte == b'\n') {
                        let rest = member.begun.split_off(end + 1);
                        member.lines.push_back(std::mem::replace(&mut member.begun, rest));
                    }
                    member.buffer = Some(buffer);
                }
                self.next(&stream);
            }
            Event::Received { stream, .. } => drop(self.lock().remove(&stream.number())),
            Event::Sent { .. } => {
                if let Some(line) = packet.context {
                    self.sent(&line);
                }
            }
            _ => {}
        }
    }

    fn sent(&self, line: &Line) {
        if line.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.next(&line.speaker);
        }
    }

    /// The speaker's next line; or, if there is none, more is received from it.
    fn next(&self, speaker: &Stream) {
        let (text, members) = {
            let mut members = self.lock();
            let Some(member) = members.get_mut(&speaker.number()) else { return };
            match member.lines.pop_front() {
                Some(text) => (text, members.values().map(|member| member.stream.clone()).collect::<Vec<_>>()),
                None => {
                    if let Some(buffer) = member.buffer.take() {
                        let _ = speaker.recv(buffer, None);
                    }
                    return;
                }
            }
        };
        // One more, for this loop: the line is not done before every send was issued.
        let line = Arc::new(Line { speaker: speaker.clone(), missing: AtomicUsize::new(members.len() + 1) });
        for member in members {
            if member.send(text.clone(), Some(line.clone())).is_err() {
                line.missing.fetch_sub(1, Ordering::AcqRel);
            }
        }
        self.sent(&line);
    }
}
