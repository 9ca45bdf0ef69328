//! A chat server as they are often written on Windows: a thread that accepts, workers that call `get` in a loop, a
//! list of clients under a lock.
//!
//! `cargo run --example accept_thread -- 127.0.0.1:7000`, then `nc 127.0.0.1 7000` in two terminals. Ctrl+C ends it.
//!
//! | there                                                     | here                                         |
//! |-----------------------------------------------------------|----------------------------------------------|
//! | `CreateIoCompletionPort(INVALID_HANDLE_VALUE, NULL, 0, 0)` | `CompletionPort::new()`                      |
//! | `CreateThread(ThreadComplete)`, four times                | `thread::spawn(move || server.work())`       |
//! | `accept` in `ThreadAcceptLoop`                            | `listener.incoming()`, std's                 |
//! | `CreateIoCompletionPort(client, port, session, 0)`        | `port.associate(socket, id)`                 |
//! | `WSARecv(client, &wsaBuf, …, overlapped)`                 | `stream.recv(buffer, ())`                    |
//! | `GetQueuedCompletionStatus`: TRUE, TRUE with 0, FALSE     | `port.get()`: `Ok(1..)`, `Ok(0)`, `Err(_)`   |
//! | `EnterCriticalSection(&g_cs)`, `g_listClient`             | `clients.lock()`                             |
//! | `SetConsoleCtrlHandler`                                   | `port.signal(SIGINT, …)`: one packet more    |
//! | `CloseHandle(g_hIocp)`: FALSE without an OVERLAPPED       | `port.close()`: `get` returns `Err(Abandoned)` |

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;
use wharf::signal::SIGINT;
use wharf::{Buffer, CompletionPort, Event, Stream};

const WORKERS: usize = 4;

/// A client's number, the key of its socket. 0 stands for none.
type Id = u64;

struct Server {
    port: CompletionPort<Id, ()>,
    clients: Mutex<HashMap<Id, Stream<Id, ()>>>,
}

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".into());
    let server = Arc::new(Server { port: CompletionPort::new()?, clients: Mutex::default() });
    server.port.signal(SIGINT, 0, ())?;
    let workers = [(); WORKERS].map(|()| {
        let server = server.clone();
        thread::spawn(move || server.work())
    });
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    io::stdout().flush()?;
    thread::spawn(move || server.accept_loop(&listener)); // ends with the process
    workers.into_iter().for_each(|worker| worker.join().expect("a worker does not panic"));
    println!("ended");
    Ok(())
}

impl Server {
    fn accept_loop(&self, listener: &TcpListener) {
        for (id, socket) in (1..).zip(listener.incoming()) {
            let Ok(stream) = socket.and_then(|socket| Ok(self.port.associate(socket, id)?)) else { continue };
            self.clients.lock().unwrap().insert(id, stream.clone());
            self.receive(id, &stream, Buffer::with_capacity(8192));
        }
    }

    fn work(&self) {
        while let Ok(packet) = self.port.get() {
            match packet.event {
                Event::Received { stream, buffer, result: Ok(1..) } => {
                    self.send_to_all(&buffer);
                    self.receive(packet.key, &stream, buffer);
                }
                // 0 bytes: the client has closed. An error: it has gone without a word.
                Event::Received { .. } => self.forget(packet.key),
                Event::Signal { result: Ok(_) } => self.port.close(), // every worker's `get` returns
                _ => {}                                               // sent
            }
        }
    }

    fn receive(&self, id: Id, stream: &Stream<Id, ()>, buffer: Buffer) {
        if stream.recv(buffer, ()).is_err() {
            self.forget(id); // refused, so no packet will come to say so
        }
    }

    /// Whoever does not read costs memory, as there: `chat.rs` shows a server with a limit.
    fn send_to_all(&self, message: &[u8]) {
        let message: Arc<[u8]> = message.into();
        for client in self.clients.lock().unwrap().values() {
            let _ = client.send(message.clone(), ()); // does not block, so the lock may be held
        }
    }

    fn forget(&self, id: Id) {
        self.clients.lock().unwrap().remove(&id); // the last handle: the socket is closed
    }
}
