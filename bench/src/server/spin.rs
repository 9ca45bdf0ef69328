//! Messages of one size; each is computed over, then sent back.

use super::handler::compute;
use super::messages::Messages;
use super::{Serve, listening, ready};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use wharf::signal::SIGTERM;
use wharf::{Buffer, CompletionPort, Event, Outcome, Packet, Workers};
use wharf_session::{Link, Service, Session};

/// A connection's key: the message that has not come whole. One receive is outstanding at a time, so its lock is free.
type Begun = Arc<Mutex<Messages>>;
type Port = CompletionPort<Begun, ()>;
type Stream = wharf::Stream<Begun, ()>;

const BUFFER_BYTES: usize = 16 * 1024;

pub fn pool(options: &Serve) -> io::Result<()> {
    let size = options.size;
    let time = Duration::from_micros(options.spin_us);
    let port: Port = listening(options.limit, begun(size), ())?;
    let associate = port.clone();
    let handler = move |packet: Packet<Begun, ()>| match packet.event {
        Event::Accepted { listener, result } => {
            let _ = listener.accept(());
            let begun = begun(size);
            if let Ok(stream) = result.and_then(|(socket, _)| Ok(associate.associate(socket, begun.clone())?)) {
                let _ = stream.set_nodelay(true);
                stream.skip_on_success();
                receive(&stream, &begun, time, Buffer::with_capacity(BUFFER_BYTES));
            }
        }
        Event::Received { stream, buffer, result: Ok(1..) } => {
            answer(&stream, &packet.key, time, &buffer);
            receive(&stream, &packet.key, time, buffer);
        }
        _ => {}
    };
    port.start(Workers::exactly(options.workers), handler)?.join();
    Ok(())
}

fn begun(size: usize) -> Begun {
    Arc::new(Mutex::new(Messages::new(size)))
}

/// Receives, and answers what is there already.
fn receive(stream: &Stream, begun: &Begun, time: Duration, mut buffer: Buffer) {
    while let Ok(Outcome::Done(packet)) = stream.recv(buffer, ())
        && let Event::Received { buffer: data, result: Ok(1..), .. } = packet.event
    {
        answer(stream, begun, time, &data);
        buffer = data;
    }
}

fn answer(stream: &Stream, begun: &Begun, time: Duration, data: &[u8]) {
    begun.lock().unwrap_or_else(PoisonError::into_inner).each(data, |message| {
        compute(time);
        let _ = stream.send(message.to_vec(), ());
    });
}

pub fn session(options: &Serve) -> io::Result<()> {
    struct Spin {
        time: Duration,
        messages: Messages,
    }
    impl Session for Spin {
        fn received(&mut self, link: &Link, data: Buffer) {
            let time = self.time;
            self.messages.each(&data, |message| {
                compute(time);
                let _ = link.send(message.to_vec());
            });
        }
    }
    let service = Service::options().workers(Workers::exactly(options.workers)).concurrency(options.limit).start()?;
    let (size, time) = (options.size, Duration::from_micros(options.spin_us));
    ready(service.listen("127.0.0.1:0", move |_| Spin { time, messages: Messages::new(size) })?)?;
    service.wait_for_signal(&[SIGTERM]).map(drop)
}
