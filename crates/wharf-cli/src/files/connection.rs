//! One connection: it receives, answers, sends, and receives again.
//!
//! Its state travels with its one outstanding operation, as the operation's context, so whoever takes the packet owns
//! it and no lock is needed. An operation that is done inside its issuing call goes on in the same loop (skip on
//! success): a request whose file is small costs a receive, an open, a look, a read, a send and a close, and no packet.
//!
//! When the state is dropped, after an error, at an end, or because a handler panicked, the connection is closed.

use super::access_log;
use super::answer::{Answer, content_bytes};
use super::body::{Skip, Skipped};
use super::clock;
use super::deadlines::{Deadline, Slot, Wait};
use super::input::Input;
use super::output::Output;
use super::request::{self, LINE_BYTES_MAX, Method, Parsed};
use super::response::{self, Part};
use super::shared::Shared;
use super::status::{Status, status};
use std::fs::File;
use std::io;
use std::net::{IpAddr, Shutdown};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use wharf::net::Permit;
use wharf::{CompletionPort, Event, FileMessage, Outcome, Packet};

pub type Port = CompletionPort<(), Purpose>;
pub type Stream = wharf::Stream<(), Purpose>;

/// What an operation is for.
#[derive(Debug)]
pub enum Purpose {
    Accept,
    /// Whatever this connection does next.
    Serve(Box<Connection>),
    /// It has had its turn, and goes on when others have had theirs.
    GoOn(Box<Connection>, Stream),
}

/// Answers that are gathered before they are sent: whoever sends many requests at once gets many answers at once.
const GATHERED_BYTES: usize = 64 * 1024;
/// Requests of one connection that are answered before others have their turn.
const REQUESTS_PER_TURN: usize = 64;
/// Bytes of a file that are sent at a time. A client that does not take one piece within the send time-out is too slow.
const PIECE_BYTES: u64 = 1024 * 1024;
/// After a refusal: what the client is still sending is received and thrown away, for this time and up to this amount,
/// because closing with something unread would reset the connection and with it the answer.
const LINGER_MS: u64 = 2000;
const LINGER_BYTES: u64 = 1024 * 1024;

#[derive(Debug)]
pub struct Connection {
    port: Port,
    shared: Arc<Shared>,
    /// Counts it as open.
    _permit: Permit,
    peer: IpAddr,
    slot: Slot,
    deadline: Arc<Deadline>,
    input: Input,
    output: Output,
    /// The body of the request that was answered last, as far as it has not come.
    skip: Option<Skip>,
    file: Option<Sending>,
    ending: Option<Ending>,
    /// The request that is arriving has to be there by then.
    arriving: Option<u64>,
    /// What the operation that is under way waits for.
    wait: Wait,
    /// The head has not ended, and nothing has come that could end it.
    half: bool,
    requests_in_turn: usize,
}

/// A file whose bytes are sent, piece by piece.
#[derive(Debug)]
struct Sending {
    file: Arc<File>,
    rest: Part,
    /// Of the piece that is under way.
    piece: u64,
    sent: u64,
    line: Option<Vec<u8>>,
}

/// How the connection ends when everything was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// At once.
    Close,
    /// The client may still be sending.
    Linger,
    /// It is told that nothing more comes, and this much of what it sends is still taken, until then.
    Lingering { bytes: u64, until: u64 },
}

/// What comes next.
enum Step {
    Send,
    SendFile,
    Receive(u64, Wait),
    GoOn,
    Close,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(Sending { line: Some(line), sent, .. }) = self.file.take() {
            self.shared.log(access_log::end(line, sent));
        }
        self.shared.deadlines.remove(&self.slot);
    }
}

impl Connection {
    /// A connection that was accepted and counted.
    pub fn new(port: &Port, shared: &Arc<Shared>, permit: Permit, peer: IpAddr, stream: &Stream) -> Box<Connection> {
        let arriving = clock::milliseconds() + shared.header_timeout_ms;
        let (slot, deadline) = shared.deadlines.add(Arc::new(stream.clone()), arriving);
        Box::new(Connection {
            port: port.clone(),
            shared: shared.clone(),
            _permit: permit,
            peer,
            slot,
            deadline,
            input: Input::default(),
            output: Output::default(),
            skip: None,
            file: None,
            ending: None,
            arriving: Some(arriving),
            wait: Wait::First,
            half: false,
            requests_in_turn: 0,
        })
    }

    /// Its packet has come through the queue, so others have had their turn.
    pub fn new_turn(&mut self) {
        self.requests_in_turn = 0;
    }

    /// Does everything that can be done without waiting. The connection is then in an operation, or gone.
    pub fn go_on(mut self: Box<Self>, mut stream: Stream) {
        loop {
            let step = self.next_step();
            if let Step::Receive(until, wait) = step {
                if wait == Wait::Request && self.shared.stopping.load(Relaxed) {
                    return;
                }
                if !self.deadline.set(until, wait) {
                    // Its time was over in the moment that more came. It is told, as it would be without that.
                    if self.is_late() {
                        continue;
                    }
                    return;
                }
                self.wait = wait;
            }
            let Some(issued) = self.issue(step, &stream) else { return };
            match issued {
                Ok(Outcome::Pending(_)) | Err(()) => return,
                Ok(Outcome::Done(packet)) => match Connection::after(packet) {
                    Some(next) => (self, stream) = next,
                    None => return,
                },
            }
        }
    }

    /// What a packet means for its connection; `None` if that is the end of it.
    pub fn after(packet: Packet<(), Purpose>) -> Option<(Box<Connection>, Stream)> {
        match (packet.event, packet.context) {
            (Event::Received { stream, buffer, result }, Purpose::Serve(mut connection)) => match result {
                Ok(0) => None,
                Ok(_) => {
                    connection.half = connection.half && !buffer.contains(&b'\n');
                    connection.input.add(buffer);
                    Some((connection, stream))
                }
                Err(_) => connection.is_late().then_some((connection, stream)),
            },
            (Event::Sent { stream, buffer, result: Ok(bytes) }, Purpose::Serve(connection)) => {
                connection.shared.totals.bytes.fetch_add(bytes as u64, Relaxed);
                Output::recycle(buffer);
                Some((connection, stream))
            }
            (Event::SentFile { stream, message, result }, Purpose::Serve(mut connection)) => {
                connection.sent_piece(*message, result).then_some((connection, stream))
            }
            (Event::Posted { .. }, Purpose::GoOn(connection, stream)) => Some((connection, stream)),
            _ => None,
        }
    }

    fn issue(mut self: Box<Self>, step: Step, stream: &Stream) -> Option<Result<Outcome<(), Purpose>, ()>> {
        let shared = self.shared.clone();
        let send_by = || clock::milliseconds() + shared.send_timeout_ms;
        Some(match step {
            Step::Send => {
                if !self.may_send(send_by()) {
                    return None;
                }
                let buffer = self.output.take();
                stream.send(buffer, Purpose::Serve(self)).map_err(drop)
            }
            Step::SendFile => {
                if !self.may_send(send_by()) {
                    return None;
                }
                let head = self.output.take();
                let sending = self.file.as_mut()?;
                sending.piece = sending.rest.length.min(PIECE_BYTES);
                let message = FileMessage {
                    head,
                    file: sending.file.clone(),
                    offset: sending.rest.offset,
                    length: Some(sending.piece),
                    tail: wharf::Buffer::default(),
                };
                stream.send_file(message, Purpose::Serve(self)).map_err(drop)
            }
            Step::Receive(..) => {
                if matches!(self.ending, Some(Ending::Lingering { .. })) {
                    let _ = stream.shutdown(Shutdown::Write);
                }
                self.input.release();
                stream.recv_pooled(Purpose::Serve(self)).map_err(drop)
            }
            Step::GoOn => {
                let port = self.port.clone();
                let _ = port.post(0, (), Purpose::GoOn(self, stream.clone()));
                return None;
            }
            Step::Close => return None,
        })
    }

    /// What is to be sent has time until `by`. A request whose end came in the moment that it was found too late is
    /// answered; whatever else is too late is over.
    fn may_send(&mut self, by: u64) -> bool {
        let waited_for = std::mem::replace(&mut self.wait, Wait::Other);
        self.deadline.set(by, Wait::Other) || waited_for == Wait::Head && self.deadline.take_over(by)
    }

    /// It is too late for what it waits for: because a head took too long?
    fn is_late(&mut self) -> bool {
        if self.wait != Wait::Head || !self.deadline.take_over(clock::milliseconds() + LINGER_MS) {
            return false;
        }
        self.refuse(status::TIMEOUT);
        true
    }

    /// Answers what is there, and says what has to be done next.
    fn next_step(&mut self) -> Step {
        if self.file.is_some() {
            return Step::SendFile;
        }
        loop {
            if self.output.len() >= GATHERED_BYTES {
                return Step::Send;
            }
            if let Some(ending) = self.ending {
                return self.end(ending);
            }
            let waits = self.half || self.input.bytes().is_empty();
            if !self.output.is_empty() && (waits || self.requests_in_turn >= REQUESTS_PER_TURN) {
                return Step::Send;
            }
            if waits && self.input.bytes().len() < LINE_BYTES_MAX {
                return self.receive();
            }
            if self.requests_in_turn >= REQUESTS_PER_TURN {
                return Step::GoOn;
            }
            let mut input = std::mem::take(&mut self.input);
            let used = match &mut self.skip {
                Some(skip) => match skip.skip(input.bytes()) {
                    Skipped::Done(bytes) => {
                        self.skip = None;
                        self.arriving = None;
                        bytes
                    }
                    Skipped::More => input.bytes().len(),
                    Skipped::Refused => {
                        self.ending = Some(Ending::Linger);
                        0
                    }
                },
                None => self.answer(input.bytes()),
            };
            input.use_up(used);
            self.input = input;
            if self.file.is_some() {
                return Step::SendFile;
            }
            if self.half && used == 0 && self.ending.is_none() {
                return if self.output.is_empty() { self.receive() } else { Step::Send };
            }
        }
    }

    fn receive(&mut self) -> Step {
        let now = clock::milliseconds();
        let begun = self.skip.is_some() || !self.input.bytes().is_empty();
        match self.arriving {
            Some(until) if self.skip.is_some() => Step::Receive(until, Wait::Other),
            Some(until) if begun => Step::Receive(until, Wait::Head),
            // The first request of a connection has to come in time, too.
            Some(until) => Step::Receive(until, Wait::First),
            None if begun => {
                let until = now + self.shared.header_timeout_ms;
                self.arriving = Some(until);
                let wait = if self.skip.is_some() { Wait::Other } else { Wait::Head };
                Step::Receive(until, wait)
            }
            None => Step::Receive(now + self.shared.idle_timeout_ms, Wait::Request),
        }
    }

    fn end(&mut self, ending: Ending) -> Step {
        if !self.output.is_empty() {
            return Step::Send;
        }
        let came = self.input.bytes().len() as u64;
        let (bytes, until) = match ending {
            Ending::Close if came == 0 => return Step::Close,
            Ending::Close | Ending::Linger => (LINGER_BYTES, clock::milliseconds() + LINGER_MS),
            Ending::Lingering { bytes, until } => match bytes.checked_sub(came) {
                Some(bytes) => (bytes, until),
                None => return Step::Close,
            },
        };
        self.input = Input::default();
        self.ending = Some(Ending::Lingering { bytes, until });
        Step::Receive(until, Wait::Other)
    }

    /// Answers the request at the start of `bytes`, and returns how many bytes it has: 0 if it has not ended.
    fn answer(&mut self, bytes: &[u8]) -> usize {
        let (request, length) = match request::parse(bytes) {
            Parsed::Request(request, length) => (request, length),
            Parsed::NotYet => {
                self.half = true;
                return 0;
            }
            Parsed::Refused(status) => {
                self.refuse_line(status, request::first_line(bytes));
                return 0;
            }
        };
        self.arriving = None;
        self.half = false;
        self.requests_in_turn += 1;
        let shared = &self.shared;
        shared.totals.requests.fetch_add(1, Relaxed);
        let close = !request.keep_alive || shared.stopping.load(Relaxed);
        let Answer { status, bytes: sent, file } = shared.site.answer(&request, close, &mut self.output);
        let line = shared.access_log.is_some().then(|| {
            let line = request::first_line(bytes);
            access_log::begin(self.peer, &clock::now().1, line, status.code)
        });
        match file {
            Some((file, rest)) => {
                self.file = Some(Sending { file: Arc::new(file), rest, piece: 0, sent: 0, line });
            }
            None => {
                if let Some(line) = line {
                    shared.log(access_log::end(line, sent));
                }
            }
        }
        if close {
            let body = request.body != request::Body::None;
            self.ending = Some(if body { Ending::Linger } else { Ending::Close });
        } else {
            self.skip = Skip::new(request.body);
        }
        length
    }

    fn refuse(&mut self, status: Status) {
        let input = std::mem::take(&mut self.input);
        self.refuse_line(status, request::first_line(input.bytes()));
    }

    /// Refuses what has come, and everything behind it.
    fn refuse_line(&mut self, status: Status, line: &[u8]) {
        let totals = &self.shared.totals;
        totals.requests.fetch_add(1, Relaxed);
        if status == status::TIMEOUT {
            totals.late.fetch_add(1, Relaxed);
        }
        // It may have been a HEAD; the connection ends, so a content does no harm.
        let start = self.output.len();
        response::text(status, Method::Get, 1, true, "", &mut self.output);
        if self.shared.access_log.is_some() {
            let begun = access_log::begin(self.peer, &clock::now().1, line, status.code);
            self.shared.log(access_log::end(begun, content_bytes(&self.output, start)));
        }
        self.half = false;
        self.ending = Some(Ending::Linger);
    }

    /// A piece of a file was sent, or not; whether the connection goes on.
    fn sent_piece(&mut self, message: FileMessage, result: io::Result<usize>) -> bool {
        let Some(sending) = &mut self.file else { return false };
        match result {
            Ok(bytes) => {
                Output::recycle(message.head);
                self.shared.totals.bytes.fetch_add(bytes as u64, Relaxed);
                sending.sent += sending.piece;
                sending.rest.offset += sending.piece;
                sending.rest.length -= sending.piece;
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::UnexpectedEof {
                    log::warn!("a file became shorter while it was sent to {}; the connection is closed", self.peer);
                } else {
                    log::debug!("a file was not sent to {}: {error}", self.peer);
                }
                return false;
            }
        }
        if sending.rest.length == 0 {
            if let Some(Sending { line: Some(line), sent, .. }) = self.file.take() {
                self.shared.log(access_log::end(line, sent));
            }
        }
        true
    }
}
