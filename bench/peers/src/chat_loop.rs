//! The chat server of the tutorials: one loop, and for each line a blocking send to each member, one after the other.
//! A member that does not read stops everybody. `--workers` means nothing to it.

use peers::{BUFFER_BYTES, Options};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;

const EVENTS_MAX: usize = 1024;
const LISTENER: u64 = 0;

struct Member {
    socket: TcpStream,
    /// The beginning of a line.
    line: Vec<u8>,
}

fn main() -> io::Result<()> {
    Options::parse(&["chat"]);
    let (address, listener) = peers::listener()?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut members: BTreeMap<u64, Member> = BTreeMap::new();
    let mut last = LISTENER;
    let mut events = Vec::with_capacity(EVENTS_MAX);
    let mut buffer = vec![0; BUFFER_BYTES];
    peers::announce(address)?;
    loop {
        events.clear();
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let number = event.data.u64();
            if number == LISTENER {
                while let Ok((socket, _)) = listener.accept() {
                    socket.set_nodelay(true)?;
                    last += 1;
                    epoll::add(&epoll, &socket, EventData::new_u64(last), EventFlags::IN)?;
                    members.insert(last, Member { socket, line: Vec::new() });
                }
                continue;
            }
            let Some(member) = members.get_mut(&number) else { continue };
            // Something is there, so the read does not block.
            let bytes = member.socket.read(&mut buffer).unwrap_or(0);
            if bytes == 0 {
                members.remove(&number);
                continue;
            }
            let mut said = std::mem::take(&mut member.line);
            said.extend_from_slice(&buffer[..bytes]);
            let whole = said.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
            member.line = said.split_off(whole);
            for line in said.split_inclusive(|&byte| byte == b'\n') {
                members.retain(|_, member| member.socket.write_all(line).is_ok());
            }
        }
    }
}
