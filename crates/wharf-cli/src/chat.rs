//! The chat client: an input line that never waits for the network.
//!
//! The main thread reads lines and hands them to the session's outbox; what arrives is printed by a worker, above the
//! line that is being typed. When either end of the program is not a terminal it copies what comes, as it comes.

use crate::address::{NO_TLS, UNIX};
use crate::options::Client;
use crate::output::unless_unwanted;
use crate::port::no_port;
use crate::printable::Printable;
use crate::system::TerminalMode;
use crate::tls::{self, Connector};
use rustyline::error::ReadlineError;
use rustyline::{DefaultEditor, ExternalPrinter};
use std::io::{self, BufRead, IsTerminal, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use wharf::{Buffer, Workers};
use wharf_session::{Closed, Link, Service, Session, SlowConsumer};

/// What may wait to be sent.
const OUTBOX_BYTES: usize = 1024 * 1024;

/// What the session tells the main thread.
enum News {
    Connected,
    Over(End),
}

/// How it ended, to be told to a person.
enum End {
    Well,
    /// With the cause; and whether that says what to do, too.
    Badly(String, bool),
}

type Print = Arc<Mutex<dyn FnMut(&[u8]) + Send>>;

struct Terminal {
    print: Print,
    news: Sender<News>,
    tls: bool,
    begun: bool,
}

/// What a server for TLS answers to plain text: an alert.
const TLS_ALERT: &[u8] = &[21, 3];

impl Session for Terminal {
    fn opened(&mut self, _link: &Link) {
        let _ = self.news.send(News::Connected);
    }

    fn received(&mut self, link: &Link, data: Buffer) {
        if !std::mem::replace(&mut self.begun, true) && !self.tls && data.starts_with(TLS_ALERT) {
            let cause = "the server speaks TLS; connect with --tls".to_owned();
            let _ = self.news.send(News::Over(End::Badly(cause, true)));
            return link.abort();
        }
        let mut print = self.print.lock().unwrap_or_else(PoisonError::into_inner);
        (*print)(&data);
    }

    fn closed(&mut self, _link: &Link, reason: &Closed) {
        let _ = self.news.send(News::Over(match reason {
            Closed::ByPeer | Closed::ByUs | Closed::Shutdown => End::Well,
            other => match tls::remedy(other) {
                Some(remedy) => End::Badly(format!("{other}{remedy}"), true),
                None => End::Badly(other.to_string(), false),
            },
        }));
    }
}

/// Connects and talks until either side ends.
pub fn run(options: &Client) -> Result<(), String> {
    let server = &options.server;
    let local = server.strip_prefix(UNIX);
    let peers = if local.is_some() { Vec::new() } else { resolve(server)? };
    let connector = options.tls.connector(server)?;
    if local.is_some() && connector.is_tls() {
        return Err(NO_TLS.into());
    }
    let interactive = io::stdin().is_terminal() && io::stdout().is_terminal();
    // Before the editor changes it.
    let mode = if interactive { TerminalMode::now() } else { None };
    let no_terminal = |error| format!("the terminal cannot be used: {error}");
    let mut editor = if interactive { Some(DefaultEditor::new().map_err(no_terminal)?) } else { None };
    let print: Print = match &mut editor {
        Some(editor) => {
            let mut printer = editor.create_external_printer().map_err(no_terminal)?;
            let mut printable = Printable::default();
            Arc::new(Mutex::new(move |bytes: &[u8]| drop(printer.print(printable.next(bytes)))))
        }
        None => {
            let mut printable = io::stdout().is_terminal().then(Printable::default);
            Arc::new(Mutex::new(move |bytes: &[u8]| {
                let shown = printable.as_mut().map(|printable| printable.next(bytes).into_bytes());
                let bytes = shown.as_deref().unwrap_or(bytes);
                let mut out = io::stdout().lock();
                if let Err(error) = out.write_all(bytes).and_then(|()| out.flush()) {
                    match unless_unwanted("what comes", &error) {
                        Ok(()) => std::process::exit(0),
                        Err(sentence) => {
                            eprintln!("wharf: {sentence}");
                            std::process::exit(1);
                        }
                    }
                }
            }))
        }
    };
    // Piped input waits for the network; a person's never does.
    let policy = if interactive { SlowConsumer::Disconnect } else { SlowConsumer::Wait };
    let service = Service::options().workers(Workers::new(1)).outbox(OUTBOX_BYTES, policy).start();
    let service = service.map_err(|error| no_port(&error))?;
    let (link, told) = connect(&service, &connector, local, &peers, &print).map_err(|(cause, explained)| {
        let remedy = if explained { "" } else { "; is the server running? `wharf serve chat` starts one" };
        format!("cannot connect to {server}: {cause}{remedy}")
    })?;
    let outcome = match &mut editor {
        Some(editor) => type_lines(editor, &link, told, mode, server),
        None => copy_input(&link, &told),
    };
    service.shutdown(Duration::from_secs(2));
    outcome
}

/// Tries one address after another: a name often has one for each version of the protocol. An error is its cause, and
/// whether that says what to do, too.
fn connect(
    service: &Service,
    connector: &Connector,
    local: Option<&str>,
    peers: &[SocketAddr],
    print: &Print,
) -> Result<(Link, Receiver<News>), (String, bool)> {
    let terminal = || {
        let (news, told) = channel();
        (Terminal { print: print.clone(), news, tls: connector.is_tls(), begun: false }, told)
    };
    if let Some(path) = local {
        let (terminal, told) = terminal();
        let link = service.connect_local(path, terminal);
        // What is not supported says what to do instead.
        let link = link.map_err(|error| (error.to_string(), error.kind() == io::ErrorKind::Unsupported))?;
        // A Unix socket is connected at once.
        let _ = told.recv();
        return Ok((link, told));
    }
    let mut last = ("the name has no address".to_owned(), true);
    for &peer in peers {
        let (terminal, told) = terminal();
        match connector.connect(service, peer, terminal) {
            Ok(link) => match told.recv() {
                Ok(News::Connected) => return Ok((link, told)),
                Ok(News::Over(End::Badly(cause, explained))) => last = (cause, explained),
                _ => last = ("the connection ended before it was made".into(), false),
            },
            Err(error) => last = (error.to_string(), false),
        }
    }
    Err(last)
}

fn type_lines(
    editor: &mut DefaultEditor,
    link: &Link,
    told: Receiver<News>,
    mode: Option<TerminalMode>,
    server: &str,
) -> Result<(), String> {
    eprintln!("connected to {server}; Ctrl+D leaves");
    let leaving = Arc::new(AtomicBool::new(false));
    let ours = leaving.clone();
    // The editor waits for a key, and there may never be one: the end is told without it.
    thread::spawn(move || {
        let Ok(News::Over(end)) = told.recv() else { return };
        if ours.load(Ordering::Relaxed) {
            return;
        }
        if let Some(mode) = mode {
            mode.restore();
        }
        let sentence = ended(end, false).err().unwrap_or_else(|| CLOSED.into());
        eprintln!("\nwharf: {sentence}");
        std::process::exit(1);
    });
    loop {
        match editor.readline("> ") {
            Ok(mut line) => {
                let _ = editor.add_history_entry(&line);
                line.push('\n');
                if link.send(line).is_err() {
                    // Why is told as soon as it is known, which ends the program.
                    thread::sleep(Duration::from_secs(1));
                    return Err("the server does not read what it is sent; the connection was ended".into());
                }
            }
            Err(ReadlineError::Eof | ReadlineError::Interrupted) => {
                leaving.store(true, Ordering::Relaxed);
                return Ok(());
            }
            Err(error) => return Err(format!("the terminal cannot be read: {error}")),
        }
    }
}

fn copy_input(link: &Link, told: &Receiver<News>) -> Result<(), String> {
    let link = link.clone();
    let finished = Arc::new(AtomicBool::new(false));
    let ours = finished.clone();
    // A thread of its own: standard input may never end, but the connection may.
    thread::spawn(move || {
        let mut input = io::stdin().lock();
        // As it comes, whether lines end or not: a piece is never too large for the outbox.
        while let Ok(piece @ [_, ..]) = input.fill_buf() {
            let bytes = piece.len();
            if link.send(piece.to_vec()).is_err() {
                return;
            }
            input.consume(bytes);
        }
        ours.store(true, Ordering::Relaxed);
        link.finish();
    });
    match told.recv() {
        Ok(News::Over(end)) => ended(end, finished.load(Ordering::Relaxed)),
        _ => Ok(()),
    }
}

const CLOSED: &str = "the server closed the connection";

/// `finished`: all that was to be sent was, and the server closes because of that.
fn ended(end: End, finished: bool) -> Result<(), String> {
    match end {
        End::Well if finished => Ok(()),
        End::Well => Err(CLOSED.into()),
        End::Badly(cause, _) => Err(format!("the connection ended: {cause}")),
    }
}

fn resolve(server: &str) -> Result<Vec<SocketAddr>, String> {
    server
        .to_socket_addrs()
        .map(Iterator::collect)
        .map_err(|error| format!("{server:?} is not a server ({error}); give HOST:PORT, such as localhost:25000"))
}
