//! An echo server on tokio: a task for each connection. `tokio-echo 1` runs on the current thread, `tokio-echo N` on a
//! pool of N.
//!
//! A message that begins with `B` makes its handler sleep first, as code that blocks without thinking of it does; with
//! `A`, inside `block_in_place`, which a pool allows.

use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const BLOCK_FOR: Duration = Duration::from_millis(50);

fn handle(message: &[u8]) {
    match message[0] {
        b'B' => std::thread::sleep(BLOCK_FOR),
        b'A' => tokio::task::block_in_place(|| std::thread::sleep(BLOCK_FOR)),
        _ => {}
    }
}

fn main() -> std::io::Result<()> {
    let threads: usize = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1);
    let runtime = if threads == 1 {
        tokio::runtime::Builder::new_current_thread().enable_io().build()?
    } else {
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_io().build()?
    };
    runtime.block_on(async {
        // What is awaited in `block_on` itself stays on this thread: the accept loop belongs on the pool too.
        tokio::spawn(serve()).await.map_err(std::io::Error::other)?
    })
}

async fn serve() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (mut socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut buffer = vec![0; 16 * 1024];
            loop {
                match socket.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(bytes) => {
                        handle(&buffer[..bytes]);
                        if socket.write_all(&buffer[..bytes]).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
    }
}
