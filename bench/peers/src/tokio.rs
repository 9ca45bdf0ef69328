//! tokio: a task for each connection; `--workers 1` on the current thread, more on its pool that steals work.
//!
//! chat: a broadcast channel, as tokio's own examples have it. A member that falls more than [`LINES_MAX`] lines behind
//! skips the oldest; it is not dropped. mixed: a task for each message; the block is read by `pread` on the blocking
//! pool, as tokio reads files itself (through io_uring it does so only where its unstable parts are turned on); the
//! timer's resolution is a millisecond.

use peers::{BLOCK_BYTES, BUFFER_BYTES, Options, PAUSE, block_of, spin};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, mpsc};

/// How many lines the channel keeps for the slowest member.
const LINES_MAX: usize = 4096;

/// How many bytes a member's lines are gathered to before they are written, and how long a line may be.
const GATHER_BYTES: usize = 64 * 1024;

/// How many answers of a connection may wait for being written.
const ANSWERS_MAX: usize = 1024;

type Line = Arc<[u8]>;

fn main() -> io::Result<()> {
    let options = Options::parse(&["echo", "spin", "chat", "mixed"]);
    let mut runtime = match options.workers() {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    runtime.worker_threads(options.workers()).enable_io();
    // Only what waits by a timer pays for timers.
    if options.kind == "mixed" {
        runtime.enable_time();
    }
    // What is awaited in `block_on` itself stays on this thread: the accept loop belongs on the pool too.
    runtime.build()?.block_on(async { tokio::spawn(serve(options)).await.map_err(io::Error::other)? })
}

async fn serve(options: Options) -> io::Result<()> {
    let size = options.size();
    match options.kind.as_str() {
        "echo" => accept(echo).await,
        "spin" => {
            let time = options.spin();
            accept(move |socket| compute(socket, size, time)).await
        }
        "chat" => {
            let (lines, _) = broadcast::channel(LINES_MAX);
            accept(move |socket| member(socket, lines.clone())).await
        }
        _ => {
            let file = Arc::new(File::open(options.file())?);
            accept(move |socket| mixed(socket, size, file.clone())).await
        }
    }
}

async fn accept<F>(mut handle: impl FnMut(TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    peers::announce(listener.local_addr()?)?;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        tokio::spawn(handle(socket));
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

async fn compute(socket: TcpStream, size: usize, time: Duration) -> io::Result<()> {
    // Buffered: several messages are read at once, and a read that leaves room shows that nothing more is there.
    let mut socket = BufReader::with_capacity(BUFFER_BYTES, socket);
    let mut message = vec![0; size];
    loop {
        socket.read_exact(&mut message).await?;
        spin(time);
        socket.write_all(&message).await?;
    }
}

async fn member(socket: TcpStream, lines: broadcast::Sender<Line>) -> io::Result<()> {
    let (reader, writer) = socket.into_split();
    let telling = tokio::spawn(tell(writer, lines.subscribe()));
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, reader);
    let mut line = Vec::new();
    while (&mut reader).take(GATHER_BYTES as u64).read_until(b'\n', &mut line).await.is_ok_and(|bytes| bytes > 0) {
        // Refused only when nobody listens; we do.
        let _ = lines.send(line.as_slice().into());
        line.clear();
    }
    telling.abort();
    Ok(())
}

/// What waits goes out in one write.
async fn tell(mut writer: OwnedWriteHalf, mut lines: broadcast::Receiver<Line>) -> io::Result<()> {
    let mut gathered = Vec::new();
    loop {
        match lines.recv().await {
            Ok(line) => gathered.extend_from_slice(&line),
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return Ok(()),
        }
        while gathered.len() < GATHER_BYTES {
            match lines.try_recv() {
                Ok(line) => gathered.extend_from_slice(&line),
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        writer.write_all(&gathered).await?;
        gathered.clear();
    }
}

async fn mixed(socket: TcpStream, size: usize, file: Arc<File>) -> io::Result<()> {
    let (reader, mut writer) = socket.into_split();
    let (answers, mut answered) = mpsc::channel::<Vec<u8>>(ANSWERS_MAX);
    tokio::spawn(async move {
        let mut gathered = Vec::new();
        while let Some(answer) = answered.recv().await {
            gathered.extend_from_slice(&answer);
            while gathered.len() < GATHER_BYTES
                && let Ok(answer) = answered.try_recv()
            {
                gathered.extend_from_slice(&answer);
            }
            if writer.write_all(&gathered).await.is_err() {
                return;
            }
            gathered.clear();
        }
    });
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, reader);
    loop {
        let mut message = vec![0; size];
        reader.read_exact(&mut message).await?;
        let (file, answers) = (file.clone(), answers.clone());
        tokio::spawn(async move {
            let at = block_of(&message);
            let block = tokio::task::spawn_blocking(move || {
                let mut block = vec![0; BLOCK_BYTES];
                file.read_exact_at(&mut block, at).map(|()| block)
            });
            // A message whose block is not there is not answered.
            if let Ok(Ok(_block)) = block.await {
                tokio::time::sleep(PAUSE).await;
                let _ = answers.send(message).await;
            }
        });
    }
}
