//! compio: a runtime on io_uring in each thread. With several workers, its dispatcher deals the connections out to
//! them, as its own example does; a thread of its own accepts. A connection stays with its worker.
//!
//! A receive is asked for anew each time. Its receive for many (`read_multi`) fails a connection when its pool of
//! buffers is empty, as a thousand busy connections make it, and saves next to nothing. mixed: the block is read by
//! io_uring.

use compio::BufResult;
use compio::dispatcher::Dispatcher;
use compio::driver::ProactorBuilder;
use compio::fs::File;
use compio::io::{AsyncRead, AsyncReadAtExt, AsyncReadExt, AsyncWriteExt};
use compio::net::{TcpListener, TcpStream};
use compio::runtime::{Runtime, spawn};
use peers::{BLOCK_BYTES, BUFFER_BYTES, Messages, Options, Outbox, PAUSE, block_of, spin};
use std::cell::OnceCell;
use std::io;
use std::rc::Rc;

fn main() -> io::Result<()> {
    let options = Options::parse(&["echo", "spin", "mixed"]);
    let mut proactor = ProactorBuilder::new();
    // A ring that only its thread uses, and whose work is done when it waits: a sixth less of processor time.
    proactor.single_issuer(true).defer_taskrun(true);
    let (address, listener) = peers::listener()?;
    listener.set_nonblocking(false)?;
    if options.workers() == 1 {
        return Runtime::builder().with_proactor(proactor).build()?.block_on(async {
            let listener = TcpListener::from_std(listener)?;
            peers::announce(address)?;
            loop {
                let (socket, _) = listener.accept().await?;
                socket.set_nodelay(true)?;
                spawn(serve(socket, options.clone())).detach();
            }
        });
    }
    let workers = Dispatcher::builder().worker_threads(options.workers).proactor_builder(proactor).build()?;
    peers::announce(address)?;
    loop {
        // Its own sockets belong to one thread (or pay for atomic counts, with its feature `sync`).
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        let options = options.clone();
        let dispatched = workers.dispatch(move || async { serve(TcpStream::from_std(socket)?, options).await });
        drop(dispatched.map_err(|_| io::Error::other("no worker is left"))?);
    }
}

async fn serve(socket: TcpStream, options: Options) -> io::Result<()> {
    match options.kind.as_str() {
        "echo" => echo(socket).await,
        "spin" => compute(socket, options).await,
        _ => mixed(socket, options).await,
    }
}

async fn echo(mut socket: TcpStream) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    loop {
        let BufResult(result, filled) = socket.read(buffer).await;
        if result? == 0 {
            return Ok(());
        }
        let BufResult(result, sent) = socket.write_all(filled).await;
        result?;
        buffer = sent;
        buffer.clear();
    }
}

async fn compute(mut socket: TcpStream, options: Options) -> io::Result<()> {
    let mut message = vec![0; options.size()];
    loop {
        let BufResult(result, filled) = socket.read_exact(message).await;
        result?;
        spin(options.spin());
        let BufResult(result, sent) = socket.write_all(filled).await;
        result?;
        message = sent;
    }
}

thread_local! {
    /// The file that the kind mixed reads; each runtime opens it once.
    static FILE: OnceCell<File> = const { OnceCell::new() };
}

async fn mixed(mut socket: TcpStream, options: Options) -> io::Result<()> {
    let file = match FILE.with(|file| file.get().cloned()) {
        Some(file) => file,
        None => {
            let file = File::open(options.file()).await?;
            FILE.with(|own| own.get_or_init(|| file).clone())
        }
    };
    let outbox = Rc::new(Outbox::new(socket.clone()));
    let mut messages = Messages::new(options.size());
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    loop {
        let BufResult(result, filled) = socket.read(buffer).await;
        if result? == 0 {
            return Ok(());
        }
        messages.each(&filled, |message| {
            let (message, file, outbox) = (message.to_vec(), file.clone(), outbox.clone());
            spawn(async move {
                // A message whose block is not there is not answered.
                let block = file.read_exact_at(Vec::with_capacity(BLOCK_BYTES), block_of(&message)).await;
                if block.0.is_err() {
                    return;
                }
                compio::time::sleep(PAUSE).await;
                let Some(mut writer) = outbox.put(&message) else { return };
                let mut bytes = Vec::new();
                while let Some(own) = outbox.next(writer, &mut bytes) {
                    writer = own;
                    let BufResult(result, sent) = writer.write_all(bytes).await;
                    if result.is_err() {
                        return;
                    }
                    bytes = sent;
                }
            })
            .detach();
            Ok(())
        })?;
        buffer = filled;
        buffer.clear();
    }
}
