//! wharf's echo servers.

use std::io::{self, Write};
use wharf::session::{Link, Service, Session};
use wharf::{Buffer, CompletionPort, Event, Outcome, Packet, TcpStream, Workers};

/// At port level: an own buffer for each connection, sends that are done at once without a packet.
pub fn port(workers: usize, concurrency: usize) -> io::Result<()> {
    let port = CompletionPort::<(), ()>::builder().concurrency(concurrency).build()?;
    let listener = port.listen("127.0.0.1:0", ())?;
    say(listener.local_addr()?)?;
    for _ in 0..16 {
        listener.accept(())?;
    }
    let associate = port.clone();
    let pool = port.run(Workers::exactly(workers), move |packet: Packet<(), ()>| match packet.event {
        Event::Accepted { listener, result } => {
            let _ = listener.accept(());
            if let Ok(stream) = result.and_then(|(socket, _)| Ok(associate.associate(socket, ())?)) {
                let _ = stream.set_nodelay(true);
                stream.skip_on_success();
                receive(&stream, Buffer::with_capacity(16 * 1024));
            }
        }
        Event::Received { stream, buffer, result: Ok(1..) } => send(&stream, buffer),
        Event::Sent { stream, buffer, result: Ok(_) } => receive(&stream, buffer),
        _ => {}
    })?;
    pool.join();
    Ok(())
}

fn receive(stream: &TcpStream<(), ()>, buffer: Buffer) {
    if let Ok(Outcome::Done(packet)) = stream.recv(buffer, ()) {
        if let Event::Received { buffer, result: Ok(1..), .. } = packet.event {
            send(stream, buffer);
        }
    }
}

fn send(stream: &TcpStream<(), ()>, buffer: Buffer) {
    if let Ok(Outcome::Done(packet)) = stream.send(buffer, ()) {
        if let Event::Sent { buffer, .. } = packet.event {
            receive(stream, buffer);
        }
    }
}

/// With sessions.
pub fn session(workers: usize, concurrency: usize) -> io::Result<()> {
    struct Echo;
    impl Session for Echo {
        fn received(&mut self, link: &Link, data: Buffer) {
            let _ = link.send(data);
        }
    }
    let service = Service::builder().workers(Workers::exactly(workers)).concurrency(concurrency).start()?;
    say(service.listen("127.0.0.1:0", |_| Echo)?)?;
    service.wait_for_signal(&[15]).map(drop)
}

/// One thread that calls `get` itself: nobody else waits, so nobody is watched.
pub fn bare_loop() -> io::Result<()> {
    let port = CompletionPort::<(), ()>::builder().concurrency(1).build()?;
    let listener = port.listen("127.0.0.1:0", ())?;
    say(listener.local_addr()?)?;
    listener.accept(())?;
    while let Ok(packet) = port.get() {
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
    Ok(())
}

fn say(address: std::net::SocketAddr) -> io::Result<()> {
    println!("listening on {address}");
    io::stdout().flush()
}
