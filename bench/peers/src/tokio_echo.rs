//! tokio, with handlers that block: the echo of `tokio`, where the first letter of what was read may make its handler
//! slow first, as code does that does not think of it. `B` sleeps; `A` does so inside `block_in_place`, which a pool
//! allows; `L` sleeps with the one lock that there is; `S` computes.

use peers::{BUFFER_BYTES, Options};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Handle, RuntimeFlavor};

const SLOW_FOR: Duration = Duration::from_millis(50);

static THE_LOCK: Mutex<()> = Mutex::new(());

fn handle(message: &[u8]) {
    match message[0] {
        b'B' => std::thread::sleep(SLOW_FOR),
        // With one thread there is nobody who could take over, and the call would panic.
        b'A' if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread => std::thread::sleep(SLOW_FOR),
        b'A' => tokio::task::block_in_place(|| std::thread::sleep(SLOW_FOR)),
        b'L' => {
            let _held = THE_LOCK.lock().unwrap_or_else(PoisonError::into_inner);
            std::thread::sleep(SLOW_FOR);
        }
        b'S' => peers::spin(SLOW_FOR),
        _ => {}
    }
}

fn main() -> io::Result<()> {
    let options = Options::parse(&["echo"]);
    let runtime = match options.workers() {
        1 => tokio::runtime::Builder::new_current_thread().enable_io().build()?,
        workers => tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_io().build()?,
    };
    // What is awaited in `block_on` itself stays on this thread: the accept loop belongs on the pool too.
    runtime.block_on(async { tokio::spawn(serve()).await.map_err(io::Error::other)? })
}

async fn serve() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    peers::announce(listener.local_addr()?)?;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        tokio::spawn(echo(socket));
    }
}

async fn echo(mut socket: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match socket.read(&mut buffer).await? {
            0 => return Ok(()),
            bytes => {
                handle(&buffer[..bytes]);
                socket.write_all(&buffer[..bytes]).await?;
            }
        }
    }
}
