//! A thread for each connection, which blocks in its reads and writes: the server that everybody writes first.
//! `--workers` means nothing to it.

use peers::{BUFFER_BYTES, Options};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

fn main() -> io::Result<()> {
    Options::parse(&["echo"]);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    peers::announce(listener.local_addr()?)?;
    loop {
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        // Where no further thread can be had, the connection is closed.
        let _ = thread::Builder::new().spawn(move || echo(socket));
    }
}

fn echo(mut socket: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match socket.read(&mut buffer)? {
            0 => return Ok(()),
            bytes => socket.write_all(&buffer[..bytes])?,
        }
    }
}
