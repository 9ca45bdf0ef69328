//! wharf's echo servers. A message that begins with [`BLOCK`] or [`ANNOUNCE`] makes its handler sleep first, without
//! and with a word to the port; the peers know the same two letters.

use std::io::{self, Write};
use std::time::Duration;
use wharf::session::{Link, Service, Session};
use wharf::{Buffer, CompletionPort, Event, Outcome, Packet, TcpStream, Workers};

/// The first byte of a message whose handler sleeps.
pub const BLOCK: u8 = b'B';
/// The same, and the handler announces it.
pub const ANNOUNCE: u8 = b'A';
/// For how long.
pub const BLOCK_FOR: Duration = Duration::from_millis(50);

type Port = CompletionPort<(), ()>;
type Stream = TcpStream<(), ()>;

fn handle(message: &[u8]) {
    match message.first() {
        Some(&BLOCK) => std::thread::sleep(BLOCK_FOR),
        Some(&ANNOUNCE) => wharf::blocking(|| std::thread::sleep(BLOCK_FOR)),
        _ => {}
    }
}

/// At port level: an own buffer for each connection, sends that are done at once without a packet.
pub fn port(workers: usize, limit: usize) -> io::Result<()> {
    let port = listening(limit)?;
    let associate = port.clone();
    let pool = port.run(Workers::exactly(workers), move |packet| echo(&associate, packet))?;
    pool.join();
    Ok(())
}

/// One thread that calls `get` itself: nobody else waits, so nobody is watched.
pub fn bare_loop() -> io::Result<()> {
    let port = listening(1)?;
    while let Ok(packet) = port.get() {
        echo(&port, packet);
    }
    Ok(())
}

fn listening(limit: usize) -> io::Result<Port> {
    let port: Port = Port::builder().concurrency(limit).build()?;
    let listener = port.listen("127.0.0.1:0", ())?;
    for _ in 0..16 {
        listener.accept(())?;
    }
    say(listener.local_addr()?)?;
    Ok(port)
}

fn echo(port: &Port, packet: Packet<(), ()>) {
    match packet.event {
        Event::Accepted { listener, result } => {
            let _ = listener.accept(());
            if let Ok(stream) = result.and_then(|(socket, _)| Ok(port.associate(socket, ())?)) {
                let _ = stream.set_nodelay(true);
                stream.skip_on_success();
                receive(&stream, Buffer::with_capacity(16 * 1024));
            }
        }
        Event::Received { stream, buffer, result: Ok(1..) } => send(&stream, buffer),
        Event::Sent { stream, buffer, result: Ok(_) } => receive(&stream, buffer),
        _ => {}
    }
}

fn receive(stream: &Stream, buffer: Buffer) {
    if let Ok(Outcome::Done(packet)) = stream.recv(buffer, ())
        && let Event::Received { buffer, result: Ok(1..), .. } = packet.event
    {
        send(stream, buffer);
    }
}

fn send(stream: &Stream, buffer: Buffer) {
    handle(&buffer);
    if let Ok(Outcome::Done(packet)) = stream.send(buffer, ())
        && let Event::Sent { buffer, .. } = packet.event
    {
        receive(stream, buffer);
    }
}

/// With sessions.
pub fn session(workers: usize, limit: usize) -> io::Result<()> {
    struct Echo;
    impl Session for Echo {
        fn received(&mut self, link: &Link, data: Buffer) {
            handle(&data);
            // Refused only when the session is over.
            let _ = link.send(data);
        }
    }
    let service = Service::builder().workers(Workers::exactly(workers)).concurrency(limit).start()?;
    say(service.listen("127.0.0.1:0", |_| Echo)?)?;
    service.wait_for_signal(&[15]).map(drop)
}

fn say(address: std::net::SocketAddr) -> io::Result<()> {
    println!("listening on {address}");
    io::stdout().flush()
}
