//! glommio: an executor on io_uring in each thread, each with its own listener on the same port, and a task for each
//! connection, which stays in its thread. The executors are not bound to processors: where they may run is for whoever
//! starts the program to say.
//!
//! mixed: the block is read through the page cache, as the other peers do it (`BufferedFile`), by io_uring.

use futures_lite::io::{AsyncReadExt, AsyncWriteExt, split};
use glommio::io::BufferedFile;
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorPoolBuilder, PoolPlacement, spawn_local};
use peers::{BLOCK_BYTES, BUFFER_BYTES, Messages, Options, Outbox, PAUSE, Place, block_of, spin};
use rustix::process::{Resource, getrlimit};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

/// For servers with thousands of connections: with its default of 128, each of 4000 messages at a time costs an eighth
/// more. With 64 connections, this costs a fiftieth.
const RING_DEPTH: usize = 1024;

/// What an executor needs of the memory that may be locked, as its documentation says. With less, the program would
/// wait for an executor that never comes.
const LOCKED_BYTES: u64 = 512 * 1024;

fn main() -> io::Result<()> {
    let options = Options::parse(&["echo", "spin", "mixed"]);
    let locked_bytes = LOCKED_BYTES * options.workers() as u64;
    if getrlimit(Resource::Memlock).current.is_some_and(|limit| limit < locked_bytes) {
        let needed = locked_bytes / 1024;
        return Err(io::Error::other(format!("glommio locks memory for its rings: ulimit -l {needed} at least")));
    }
    let place = Arc::new(Place::new(options.workers())?);
    let executors = LocalExecutorPoolBuilder::new(PoolPlacement::Unbound(options.workers()))
        .ring_depth(RING_DEPTH)
        .on_all_shards(move || async move { serve(&place, options).await })
        .map_err(io::Error::from)?;
    for result in executors.join_all() {
        result.map_err(io::Error::from)??;
    }
    Ok(())
}

async fn serve(place: &Place, options: Options) -> io::Result<()> {
    let listener = TcpListener::bind(place.address())?;
    let file = match options.kind.as_str() {
        "mixed" => Some(Rc::new(BufferedFile::open(options.file()).await?)),
        _ => None,
    };
    place.ready()?;
    let options = Rc::new(options);
    loop {
        let socket = listener.accept().await?;
        socket.set_nodelay(true)?;
        match (options.kind.as_str(), &file) {
            ("echo", _) => drop(spawn_local(echo(socket)).detach()),
            ("spin", _) => drop(spawn_local(compute(socket, options.clone())).detach()),
            (_, Some(file)) => drop(spawn_local(mixed(socket, options.clone(), file.clone())).detach()),
            (_, None) => unreachable!("the kind mixed opens its file"),
        }
    }
}

async fn echo(mut socket: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match socket.read(&mut buffer).await? {
            0 => return Ok(()),
            bytes => socket.write_all(&buffer[..bytes]).await?,
        }
    }
}

async fn compute(mut socket: TcpStream, options: Rc<Options>) -> io::Result<()> {
    let mut message = vec![0; options.size()];
    loop {
        socket.read_exact(&mut message).await?;
        spin(options.spin());
        socket.write_all(&message).await?;
    }
}

async fn mixed(socket: TcpStream, options: Rc<Options>, file: Rc<BufferedFile>) -> io::Result<()> {
    let (mut reader, writer) = split(socket);
    let outbox = Rc::new(Outbox::new(writer));
    let mut messages = Messages::new(options.size());
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let bytes = match reader.read(&mut buffer).await? {
            0 => return Ok(()),
            bytes => bytes,
        };
        messages.each(&buffer[..bytes], |message| {
            let (message, file, outbox) = (message.to_vec(), file.clone(), outbox.clone());
            let answer = async move {
                // A message whose block is not there is not answered.
                match file.read_at(block_of(&message), BLOCK_BYTES).await {
                    Ok(block) if block.len() == BLOCK_BYTES => {}
                    _ => return,
                }
                glommio::timer::sleep(PAUSE).await;
                let Some(mut writer) = outbox.put(&message) else { return };
                let mut bytes = Vec::new();
                while let Some(own) = outbox.next(writer, &mut bytes) {
                    writer = own;
                    if writer.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            };
            drop(spawn_local(answer).detach());
            Ok(())
        })?;
    }
}
