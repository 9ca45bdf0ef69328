//! Sockets, file reads and timers in one port: each message names a block of a file, which is read; then a timer waits
//! a millisecond; then the message is the answer.

use super::messages::Messages;
use super::{Serve, ready};
use std::fs::OpenOptions;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use wharf::fs::File;
use wharf::{Buffer, CompletionPort, Event, Outcome, Packet, Workers};

const BUFFER_BYTES: usize = 16 * 1024;
const BLOCK_BYTES: usize = 4096;
const PAUSE: Duration = Duration::from_millis(1);

/// A device's key: for a connection, the message that has not come whole.
type Begun = Option<Arc<Mutex<Messages>>>;
type Port = CompletionPort<Begun, Purpose>;
type Stream = wharf::Stream<Begun, Purpose>;

/// What an operation is for.
enum Purpose {
    Any,
    /// A message to be answered.
    Answer(Stream, Buffer),
}

struct Server {
    port: Port,
    file: File<Begun, Purpose>,
    size: usize,
}

pub fn pool(options: &Serve) -> io::Result<()> {
    let path = options.file.as_ref().ok_or_else(|| io::Error::other("the kind mixed reads a file: --file PATH"))?;
    if options.size < size_of::<u64>() {
        return Err(io::Error::other("a message of the kind mixed begins with a number of 8 bytes: --size 8 or more"));
    }
    let port: Port = Port::options().concurrency(options.limit).build()?;
    let file = port.open(path, OpenOptions::new().read(true), None)?;
    file.skip_on_success();
    let listener = port.listen("127.0.0.1:0", None)?;
    for _ in 0..16 {
        listener.accept(Purpose::Any)?;
    }
    ready(listener.local_addr()?)?;
    let server = Server { port: port.clone(), file, size: options.size };
    port.start(Workers::exactly(options.workers), move |packet| server.handle(packet))?.join();
    Ok(())
}

impl Server {
    fn handle(&self, packet: Packet<Begun, Purpose>) {
        match (packet.event, packet.context) {
            (Event::Accepted { listener, result }, _) => {
                let _ = listener.accept(Purpose::Any);
                let begun = Some(Arc::new(Mutex::new(Messages::new(self.size))));
                let associated = result.and_then(|(socket, _)| Ok(self.port.associate(socket, begun.clone())?));
                if let Ok(stream) = associated {
                    let _ = stream.set_nodelay(true);
                    stream.skip_on_success();
                    self.receive(&stream, &begun, Buffer::with_capacity(BUFFER_BYTES));
                }
            }
            (Event::Received { stream, buffer, result: Ok(1..) }, _) => {
                self.received(&stream, &packet.key, &buffer);
                self.receive(&stream, &packet.key, buffer);
            }
            (Event::Read { result, .. }, Purpose::Answer(stream, message)) => self.read(result, stream, message),
            (Event::Elapsed { result: Ok(_) }, Purpose::Answer(stream, message)) => {
                let _ = stream.send(message, Purpose::Any);
            }
            _ => {}
        }
    }

    /// Receives, and takes what is there already.
    fn receive(&self, stream: &Stream, begun: &Begun, mut buffer: Buffer) {
        while let Ok(Outcome::Done(packet)) = stream.recv(buffer, Purpose::Any)
            && let Event::Received { buffer: data, result: Ok(1..), .. } = packet.event
        {
            self.received(stream, begun, &data);
            buffer = data;
        }
    }

    /// Begins a read for each message that is there.
    fn received(&self, stream: &Stream, begun: &Begun, data: &[u8]) {
        if let Some(begun) = begun {
            begun.lock().unwrap_or_else(PoisonError::into_inner).each(data, |message| self.ask(stream, message));
        }
    }

    fn ask(&self, stream: &Stream, message: &[u8]) {
        let number = u64::from_le_bytes(*message.first_chunk().expect("a message has 8 bytes at least"));
        let purpose = Purpose::Answer(stream.clone(), message.to_vec().into());
        let offset = number.wrapping_mul(BLOCK_BYTES as u64);
        // What the cache holds is here already.
        if let Ok(Outcome::Done(packet)) = self.file.read_at(Buffer::with_capacity(BLOCK_BYTES), offset, purpose)
            && let (Event::Read { result, .. }, Purpose::Answer(stream, message)) = (packet.event, packet.context)
        {
            self.read(result, stream, message);
        }
    }

    /// A message whose block is not there is not answered.
    fn read(&self, result: io::Result<usize>, stream: Stream, message: Buffer) {
        if result.is_ok_and(|bytes| bytes == BLOCK_BYTES) {
            let _ = self.port.timer(PAUSE, None, Purpose::Answer(stream, message));
        }
    }
}
