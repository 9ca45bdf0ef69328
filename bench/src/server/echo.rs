//! Bytes back as they come.

use super::{Serve, handler::handle, listening, ready};
use std::io;
use wharf::signal::SIGTERM;
use wharf::{Buffer, CompletionPort, Event, Outcome, Packet, Workers};
use wharf_session::{Link, Service, Session};

type Port = CompletionPort<(), ()>;
type Stream = wharf::Stream<(), ()>;

const BUFFER_BYTES: usize = 16 * 1024;

/// What a connection is served with.
#[derive(Clone, Copy)]
struct Way {
    skip: bool,
    pooled: bool,
}

impl Way {
    fn of(options: &Serve) -> Way {
        Way { skip: !options.packets, pooled: options.pooled }
    }
}

/// At port level: an own buffer for each connection, sends that are done at once without a packet.
pub fn pool(options: &Serve) -> io::Result<()> {
    let port: Port = listening(options.limit, (), ())?;
    let way = Way::of(options);
    let associate = port.clone();
    let pool = port.start(Workers::exactly(options.workers), move |packet| echo(&associate, way, packet))?;
    pool.join();
    Ok(())
}

/// One thread that calls `get` itself: nobody else waits, so nobody is watched.
pub fn one_thread(options: &Serve) -> io::Result<()> {
    let port: Port = listening(1, (), ())?;
    let way = Way::of(options);
    while let Ok(packet) = port.get() {
        echo(&port, way, packet);
    }
    Ok(())
}

fn echo(port: &Port, way: Way, packet: Packet<(), ()>) {
    match packet.event {
        Event::Accepted { listener, result } => {
            let _ = listener.accept(());
            if let Ok(stream) = result.and_then(|(socket, _)| Ok(port.associate(socket, ())?)) {
                let _ = stream.set_nodelay(true);
                if way.skip {
                    stream.skip_on_success();
                }
                serve(&stream, way, None);
            }
        }
        Event::Received { stream, buffer, result: Ok(1..) } => {
            if let Some(buffer) = answer(&stream, buffer) {
                serve(&stream, way, Some(buffer));
            }
        }
        Event::Sent { stream, buffer, result: Ok(_) } => serve(&stream, way, Some(buffer)),
        _ => {}
    }
}

/// Receives and answers, for as long as both can be done at once; then a packet will come.
fn serve(stream: &Stream, way: Way, mut buffer: Option<Buffer>) {
    loop {
        let received = if way.pooled {
            drop(buffer.take());
            stream.recv_pooled(()).ok()
        } else {
            let own = buffer.take().unwrap_or_else(|| Buffer::with_capacity(BUFFER_BYTES));
            stream.recv(own, ()).ok()
        };
        let Some(Outcome::Done(packet)) = received else { return };
        let Event::Received { buffer: data, result: Ok(1..), .. } = packet.event else { return };
        let Some(back) = answer(stream, data) else { return };
        buffer = Some(back);
    }
}

/// The buffer, if all of it went out at once.
fn answer(stream: &Stream, data: Buffer) -> Option<Buffer> {
    handle(&data);
    let Ok(Outcome::Done(packet)) = stream.send(data, ()) else { return None };
    match packet.event {
        Event::Sent { buffer, result: Ok(_), .. } => Some(buffer),
        _ => None,
    }
}

/// With sessions.
pub fn session(options: &Serve) -> io::Result<()> {
    struct Echo;
    impl Session for Echo {
        fn received(&mut self, link: &Link, data: Buffer) {
            handle(&data);
            // Refused only when the session is over.
            let _ = link.send(data);
        }
    }
    let service = Service::options().workers(Workers::exactly(options.workers)).concurrency(options.limit).start()?;
    ready(service.listen("127.0.0.1:0", |_| Echo)?)?;
    service.wait_for_signal(&[SIGTERM]).map(drop)
}
