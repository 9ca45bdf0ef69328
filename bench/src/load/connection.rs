//! One connection of the generator: what it sends, what of it the system has not taken yet, and which answers are
//! missing. Answers are compared with what they should be.

use super::pace::Random;
use super::{BUFFER_BYTES, Shape};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

pub struct Connection {
    pub socket: TcpStream,
    pub content: Content,
    /// When the messages should have left whose answers are missing, oldest first.
    intended: VecDeque<Instant>,
    /// It is in the list of those with something to be written.
    pub is_dirty: bool,
    pub waits_for_room: bool,
}

/// What is sent.
#[derive(Clone)]
pub enum Content {
    Same(Same),
    Blocks(Blocks),
}

/// The same message again and again.
#[derive(Clone)]
pub struct Same {
    /// It, so often that any run of what is sent or received is a piece of this.
    text: Rc<[u8]>,
    bytes: usize,
    unsent: usize,
    /// How far into a message sending and receiving are.
    sent: usize,
    received: usize,
}

/// Messages that name a block of a file, and when they should have left; answers in any order.
#[derive(Clone)]
pub struct Blocks {
    count: u64,
    bytes: usize,
    origin: Instant,
    out: Vec<u8>,
    begun: Vec<u8>,
}

impl Content {
    pub fn of(shape: &Shape) -> Content {
        match shape.blocks {
            Some(count) => {
                assert!(shape.bytes >= 16, "a block's number and a time");
                let origin = Instant::now();
                Content::Blocks(Blocks { count, bytes: shape.bytes, origin, out: Vec::new(), begun: Vec::new() })
            }
            // No letter that makes a handler slow.
            None => Content::beginning_with(b'a', shape.bytes),
        }
    }

    /// A message that begins with this letter.
    pub fn beginning_with(letter: u8, bytes: usize) -> Content {
        let mut message: Vec<u8> = (0..bytes).map(|at| b'a' + (at % 26) as u8).collect();
        message[0] = letter;
        let times = (BUFFER_BYTES + bytes).div_ceil(bytes) + 1;
        Content::Same(Same { text: message.repeat(times).into(), bytes, unsent: 0, sent: 0, received: 0 })
    }
}

impl Connection {
    pub fn open(address: SocketAddr, content: Content) -> io::Result<Connection> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(Connection { socket, content, intended: VecDeque::new(), is_dirty: false, waits_for_room: false })
    }

    /// One message more that should leave at that moment.
    pub fn queue(&mut self, intended: Instant, random: &mut Random) {
        match &mut self.content {
            Content::Same(same) => {
                same.unsent += same.bytes;
                self.intended.push_back(intended);
            }
            Content::Blocks(blocks) => {
                let begin = blocks.out.len();
                blocks.out.extend_from_slice(&random.below(blocks.count).to_le_bytes());
                let nanos = intended.saturating_duration_since(blocks.origin).as_nanos() as u64;
                blocks.out.extend_from_slice(&nanos.to_le_bytes());
                blocks.out.resize(begin + blocks.bytes, b'x');
            }
        }
    }

    /// Writes what the system takes. False: there is more.
    pub fn push(&mut self) -> io::Result<bool> {
        loop {
            let piece = match &self.content {
                Content::Same(same) => {
                    let room = same.text.len() - same.sent;
                    &same.text[same.sent..same.sent + same.unsent.min(room)]
                }
                Content::Blocks(blocks) => &blocks.out[..],
            };
            if piece.is_empty() {
                return Ok(true);
            }
            let bytes = match self.socket.write(piece) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            };
            match &mut self.content {
                Content::Same(same) => {
                    same.unsent -= bytes;
                    same.sent = (same.sent + bytes) % same.bytes;
                }
                Content::Blocks(blocks) => drop(blocks.out.drain(..bytes)),
            }
        }
    }

    /// Reads what has come; appends for each whole answer the moment at which its message should have left.
    pub fn receive(&mut self, buffer: &mut [u8], answers: &mut Vec<Instant>) -> io::Result<()> {
        let bytes = match self.socket.read(buffer) {
            Ok(0) => return Err(io::Error::other("the server closed a connection")),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let data = &buffer[..bytes];
        let wrong = || io::Error::other("the answer is not what was sent");
        match &mut self.content {
            Content::Same(same) => {
                if data != &same.text[same.received..same.received + bytes] {
                    return Err(wrong());
                }
                let whole = (same.received + bytes) / same.bytes;
                same.received = (same.received + bytes) % same.bytes;
                if whole > self.intended.len() {
                    return Err(io::Error::other("more answers than messages"));
                }
                answers.extend(self.intended.drain(..whole));
            }
            Content::Blocks(blocks) => {
                blocks.begun.extend_from_slice(data);
                let whole = blocks.begun.len() / blocks.bytes * blocks.bytes;
                for message in blocks.begun[..whole].chunks_exact(blocks.bytes) {
                    let (block, rest) = message.split_first_chunk::<8>().ok_or_else(wrong)?;
                    let (nanos, rest) = rest.split_first_chunk::<8>().ok_or_else(wrong)?;
                    if u64::from_le_bytes(*block) >= blocks.count || rest.iter().any(|&byte| byte != b'x') {
                        return Err(wrong());
                    }
                    answers.push(blocks.origin + Duration::from_nanos(u64::from_le_bytes(*nanos)));
                }
                blocks.begun.drain(..whole);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn pair(shape: Shape) -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = Connection::open(listener.local_addr().unwrap(), Content::of(&shape)).unwrap();
        (connection, listener.accept().unwrap().0)
    }

    fn receive(connection: &mut Connection, until: usize) -> io::Result<Vec<Instant>> {
        let (mut buffer, mut answers) = (vec![0; BUFFER_BYTES], Vec::new());
        let deadline = Instant::now() + Duration::from_secs(10);
        while answers.len() < until && Instant::now() < deadline {
            connection.receive(&mut buffer, &mut answers)?;
        }
        Ok(answers)
    }

    #[test]
    fn answers_in_pieces_belong_to_the_messages_in_order() {
        let (mut connection, mut server) = pair(Shape::new(1, 5, 1));
        let first = Instant::now();
        let second = first + Duration::from_secs(1);
        connection.queue(first, &mut Random::new(1));
        connection.queue(second, &mut Random::new(1));
        assert!(connection.push().unwrap());
        let mut echo = [0; 10];
        server.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"abcdeabcde");
        server.write_all(&echo[..7]).unwrap();
        assert_eq!(receive(&mut connection, 1).unwrap(), [first]);
        server.write_all(&echo[7..]).unwrap();
        assert_eq!(receive(&mut connection, 1).unwrap(), [second]);
    }

    #[test]
    fn a_server_that_answers_wrongly_is_found_out() {
        let (mut connection, mut server) = pair(Shape::new(1, 5, 1));
        connection.queue(Instant::now(), &mut Random::new(1));
        server.write_all(b"abXde").unwrap();
        assert!(receive(&mut connection, 1).unwrap_err().to_string().contains("not what was sent"));
        let (mut connection, mut server) = pair(Shape::new(1, 5, 1));
        server.write_all(b"abcde").unwrap();
        assert!(receive(&mut connection, 1).unwrap_err().to_string().contains("more answers"));
    }

    #[test]
    fn messages_that_name_a_block_are_answered_in_any_order() {
        let shape = Shape { blocks: Some(100), ..Shape::new(1, 32, 2) };
        let (mut connection, mut server) = pair(shape);
        let first = Instant::now();
        let second = first + Duration::from_secs(1);
        connection.queue(first, &mut Random::new(1));
        connection.queue(second, &mut Random::new(2));
        assert!(connection.push().unwrap());
        let mut messages = [0; 64];
        server.read_exact(&mut messages).unwrap();
        server.write_all(&messages[32..]).unwrap();
        server.write_all(&messages[..32]).unwrap();
        assert_eq!(receive(&mut connection, 2).unwrap(), [second, first]);
    }
}
