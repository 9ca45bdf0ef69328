//! A receive on the raw layer that ends with an event, and no packet.
//!
//! `cargo run --example event`
//!
//! The thread that issues it waits for the event, and nobody calls `get`. A thread that supervises the port does its
//! work meanwhile.

use std::io::{Error, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;
use wharf::raw::{Buffers, CompletionEvent, Config, DeviceKind, Port, RawBuffer, Sink};

fn main() -> std::io::Result<()> {
    let port = Port::new(Config::default())?;
    let supervised = port.clone();
    let supervisor = std::thread::spawn(move || supervised.supervise());

    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut peer = TcpStream::connect(listener.local_addr()?)?;
    let (stream, _) = listener.accept()?;
    stream.set_nonblocking(true)?;
    let device = port.adopt(stream, DeviceKind::Stream, 1).map_err(|(error, _)| Error::from_raw_os_error(error))?;

    let mut memory = [0; 64];
    let buffer = RawBuffer { pointer: memory.as_mut_ptr(), length: memory.len() };
    let event = CompletionEvent::new();
    // SAFETY: the memory lives until the event has told of the end, and nobody else touches it before.
    #[allow(unsafe_code)]
    let issued = unsafe { port.receive(&device, Buffers::One(buffer), 7, Sink::Event(event.clone())) };
    issued.map_err(Error::from_raw_os_error)?;
    peer.write_all(b"hello")?;
    let ended = event.wait(Some(Duration::from_secs(60)));
    port.close();
    port.close_device(&device);
    supervisor.join().expect("it ends when the port is closed");
    let ended = ended.ok_or_else(|| Error::other("nothing has come"))?;
    println!("operation {}: {:?}", ended.token, String::from_utf8_lossy(&memory[..ended.bytes]));
    Ok(())
}
