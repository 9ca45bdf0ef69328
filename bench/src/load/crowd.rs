//! Connections that do nothing, held by a process of its own: the limit on descriptors is one process's, and crowds
//! should not use up the generator's.

use crate::process::{Running, command};
use crate::system::Server;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{ChildStdin, Stdio};

/// What every connection says first, and hears again.
const HELLO: &[u8] = b"abcdefghijklmnopqrstuvwxyzabcdef";

/// The process that holds them. They end when it is dropped.
pub struct Crowd {
    _running: Running,
    _input: Option<ChildStdin>,
}

impl Crowd {
    /// So many connections, each of which has had one answer.
    pub fn connect(server: &Server, count: usize) -> io::Result<Crowd> {
        let program = std::env::current_exe()?;
        let arguments = ["child", "crowd", &server.address.to_string(), &count.to_string()].map(str::to_owned);
        let mut child = command(&program, &arguments)?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let running = Running(child);
        let mut line = String::new();
        BufReader::new(output.ok_or_else(|| io::Error::other("no output"))?).read_line(&mut line)?;
        if line.trim() != "ready" {
            return Err(server.named(io::Error::other(format!("{count} idle connections could not be made"))));
        }
        Ok(Crowd { _running: running, _input: input })
    }
}

/// The process itself.
pub fn hold(address: SocketAddr, count: usize) -> io::Result<()> {
    crate::machine::allow_descriptors();
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let mut socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(super::SILENCE_MAX))?;
        socket.write_all(HELLO)?;
        sockets.push(socket);
        // A few behind, so that many are on their way at a time.
        if let Some(behind) = sockets.len().checked_sub(33) {
            hear(&mut sockets[behind])?;
        }
    }
    let begin = sockets.len().saturating_sub(32);
    sockets[begin..].iter_mut().try_for_each(hear)?;
    println!("ready");
    io::stdout().flush()?;
    // Until whoever started this lets go of it.
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}

fn hear(socket: &mut TcpStream) -> io::Result<()> {
    let mut answer = [0; HELLO.len()];
    socket.read_exact(&mut answer)?;
    if answer != HELLO {
        return Err(io::Error::other("the answer is not what was sent"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_is_heard_of_once_before_it_is_idle() {
        // Off-by-one errors of the window would leave an answer unread, or wait for one twice.
        for count in [0, 1, 32, 33, 34, 70] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = std::thread::spawn(move || {
                let mut sockets = Vec::new();
                for _ in 0..count {
                    let mut socket = listener.accept().unwrap().0;
                    let mut hello = [0; HELLO.len()];
                    socket.read_exact(&mut hello).unwrap();
                    socket.write_all(&hello).unwrap();
                    sockets.push(socket);
                }
                sockets
            });
            // The standard input of a test is at its end.
            hold(address, count).unwrap();
            assert_eq!(server.join().unwrap().len(), count);
        }
    }
}
