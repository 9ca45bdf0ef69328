//! monoio: a runtime on io_uring in each thread, each with its own listener on the same port, and a task for each
//! connection, which stays in its thread.
//!
//! mixed: the block is read by io_uring; the timer's resolution is a millisecond.

use monoio::fs::File;
use monoio::io::{AsyncReadRent, AsyncReadRentExt, AsyncWriteRentExt, Splitable};
use monoio::net::{ListenerOpts, TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};
use peers::{BLOCK_BYTES, BUFFER_BYTES, Messages, Options, Outbox, PAUSE, Place, block_of, on_threads, spin};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

/// As many connections may wait to be accepted as with the other peers.
const BACKLOG: i32 = 4096;

fn main() -> io::Result<()> {
    let options = Options::parse(&["echo", "spin", "mixed"]);
    let place = Arc::new(Place::new(options.workers())?);
    let each = (0..options.workers()).map(|_| (place.clone(), options.clone())).collect();
    on_threads(each, |(place, options)| {
        // A ring that only its thread uses, which its builder leaves to the user to say: a sixth less of processor
        // time.
        let mut ring = io_uring_of_monoio::IoUring::builder();
        ring.setup_single_issuer().setup_coop_taskrun();
        let runtime = RuntimeBuilder::<IoUringDriver>::new().uring_builder(ring);
        // Only what waits by a timer pays for timers.
        match options.kind.as_str() {
            "mixed" => runtime.enable_timer().build()?.block_on(serve(&place, options)),
            _ => runtime.build()?.block_on(serve(&place, options)),
        }
    })
}

async fn serve(place: &Place, options: Options) -> io::Result<()> {
    let listener = TcpListener::bind_with_config(place.address(), &ListenerOpts::new().backlog(BACKLOG))?;
    let file = match options.kind.as_str() {
        "mixed" => Some(Rc::new(File::open(options.file()).await?)),
        _ => None,
    };
    place.ready()?;
    let options = Rc::new(options);
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        match (options.kind.as_str(), &file) {
            ("echo", _) => drop(monoio::spawn(echo(socket))),
            ("spin", _) => drop(monoio::spawn(compute(socket, options.clone()))),
            (_, Some(file)) => drop(monoio::spawn(mixed(socket, options.clone(), file.clone()))),
            (_, None) => unreachable!("the kind mixed opens its file"),
        }
    }
}

async fn echo(mut socket: TcpStream) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    let mut result;
    loop {
        (result, buffer) = socket.read(buffer).await;
        if result? == 0 {
            return Ok(());
        }
        (result, buffer) = socket.write_all(buffer).await;
        result?;
        buffer.clear();
    }
}

async fn compute(mut socket: TcpStream, options: Rc<Options>) -> io::Result<()> {
    let mut message = vec![0; options.size()];
    let mut result;
    loop {
        (result, message) = socket.read_exact(message).await;
        result?;
        spin(options.spin());
        (result, message) = socket.write_all(message).await;
        result?;
    }
}

async fn mixed(socket: TcpStream, options: Rc<Options>, file: Rc<File>) -> io::Result<()> {
    let (mut reader, writer) = socket.into_split();
    let outbox = Rc::new(Outbox::new(writer));
    let mut messages = Messages::new(options.size());
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    let mut result;
    loop {
        (result, buffer) = reader.read(buffer).await;
        if result? == 0 {
            return Ok(());
        }
        messages.each(&buffer, |message| {
            let (message, file, outbox) = (message.to_vec(), file.clone(), outbox.clone());
            monoio::spawn(async move {
                // A message whose block is not there is not answered.
                let (result, _block) = file.read_exact_at(vec![0; BLOCK_BYTES], block_of(&message)).await;
                if result.is_err() {
                    return;
                }
                monoio::time::sleep(PAUSE).await;
                let Some(mut writer) = outbox.put(&message) else { return };
                let mut bytes = Vec::new();
                while let Some(own) = outbox.next(writer, &mut bytes) {
                    writer = own;
                    let result;
                    (result, bytes) = writer.write_all(bytes).await;
                    if result.is_err() {
                        return;
                    }
                }
            });
            Ok(())
        })?;
        buffer.clear();
    }
}
