//! A bare loop around io_uring with what makes it fast: a ring that only its thread uses and whose work is done when it
//! waits, one accept for all connections, one receive for all that a connection will send, buffers that the kernel
//! picks from a ring of them, and one system call for a whole batch.
//!
//! A connection has one send under way at a time, for two could overtake each other. A client that sends and does not
//! read can hold all buffers, for nothing pauses its receive. With several workers, each has its own ring and its own
//! listener on the same port.

use io_uring::squeue::Entry;
use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, SubmissionQueue, Submitter, cqueue, opcode};
use peers::{BUFFER_BYTES, Options, Place, on_threads};
use slab::Slab;
use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

const ENTRIES: u32 = 1024;
const COMPLETIONS: u32 = 8192;
/// How many buffers the kernel picks from: a power of two.
const BUFFERS: u16 = 1024;
const GROUP: u16 = 0;

const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1 << 32;
const SEND: u64 = 2 << 32;

struct Connection {
    socket: TcpStream,
    /// Received and not sent: the buffer, and how many bytes are in it. The first is under way.
    unsent: VecDeque<(u16, u32)>,
    receiving: bool,
    ended: bool,
}

fn main() -> io::Result<()> {
    let options = Options::parse(&["echo"]);
    let place = Arc::new(Place::new(options.workers())?);
    on_threads(vec![place; options.workers()], |place| serve(&place))
}

fn serve(place: &Place) -> io::Result<()> {
    let listener = place.bind()?;
    // What would block is for the ring to wait for; with O_NONBLOCK it would fail instead.
    listener.set_nonblocking(false)?;
    let mut ring: IoUring =
        IoUring::builder().setup_single_issuer().setup_defer_taskrun().setup_cqsize(COMPLETIONS).build(ENTRIES)?;
    let (mut submitter, submissions, mut completions) = ring.split();
    submitter.register_ring_fd()?;
    let mut buffers = Buffers::new(&submitter)?;
    let mut queue = Queue { submitter, submissions };
    let mut connections: Slab<Connection> = Slab::new();
    // Those whose receive ended because no buffer was left.
    let mut starved = Vec::new();
    queue.accept(&listener)?;
    place.ready()?;
    loop {
        queue.submit(1)?;
        completions.sync();
        for completion in &mut completions {
            let (result, flags) = (completion.result(), completion.flags());
            let more = cqueue::more(flags);
            let key = completion.user_data() as u32 as usize;
            match completion.user_data() - key as u64 {
                ACCEPT => {
                    if result >= 0 {
                        // SAFETY: the kernel made this descriptor for us.
                        let socket = unsafe { TcpStream::from_raw_fd(result) };
                        socket.set_nodelay(true)?;
                        let new = Connection { socket, unsent: VecDeque::new(), receiving: true, ended: false };
                        let key = connections.insert(new);
                        queue.receive(&connections[key].socket, key)?;
                    }
                    if !more {
                        queue.accept(&listener)?;
                    }
                    continue;
                }
                RECEIVE => {
                    let connection = &mut connections[key];
                    connection.receiving = more;
                    match (result, cqueue::buffer_select(flags)) {
                        (1.., Some(buffer)) => {
                            buffers.taken(buffer);
                            connection.unsent.push_back((buffer, result as u32));
                            if connection.unsent.len() == 1 {
                                queue.send(connection, &buffers, key)?;
                            }
                        }
                        (libc_enobufs, _) if libc_enobufs == -libc::ENOBUFS => starved.push(key),
                        (_, buffer) => {
                            if let Some(buffer) = buffer {
                                buffers.taken(buffer);
                                buffers.give(buffer);
                            }
                            connection.ended = true;
                        }
                    }
                    if !connection.receiving && !connection.ended && result > 0 {
                        connection.receiving = true;
                        queue.receive(&connection.socket, key)?;
                    }
                }
                _ => {
                    let connection = &mut connections[key];
                    if let Some((buffer, bytes)) = connection.unsent.pop_front() {
                        buffers.give(buffer);
                        if result != bytes as i32 {
                            // Nobody is there any more: the receive will end, too.
                            connection.ended = true;
                            let _ = connection.socket.shutdown(Shutdown::Both);
                            connection.unsent.drain(..).for_each(|(buffer, _)| buffers.give(buffer));
                        } else if !connection.unsent.is_empty() {
                            queue.send(connection, &buffers, key)?;
                        }
                    }
                }
            }
            let connection = &connections[key];
            if connection.ended && !connection.receiving && connection.unsent.is_empty() {
                starved.retain(|&other| other != key);
                connections.remove(key);
            }
        }
        buffers.publish();
        while buffers.free > 0
            && let Some(key) = starved.pop()
        {
            connections[key].receiving = true;
            queue.receive(&connections[key].socket, key)?;
        }
    }
}

/// The way in.
struct Queue<'a> {
    submitter: Submitter<'a>,
    submissions: SubmissionQueue<'a>,
}

impl Queue<'_> {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        self.push(
            opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).flags(libc::SOCK_CLOEXEC).build().user_data(ACCEPT),
        )
    }

    fn receive(&mut self, socket: &TcpStream, key: usize) -> io::Result<()> {
        self.push(opcode::RecvMulti::new(Fd(socket.as_raw_fd()), GROUP).build().user_data(RECEIVE | key as u64))
    }

    /// Sends the connection's first buffer, the whole of it.
    fn send(&mut self, connection: &Connection, buffers: &Buffers, key: usize) -> io::Result<()> {
        let (buffer, bytes) = connection.unsent[0];
        let entry = opcode::Send::new(Fd(connection.socket.as_raw_fd()), buffers.bytes(buffer), bytes)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL);
        self.push(entry.build().user_data(SEND | key as u64))
    }

    fn push(&mut self, entry: Entry) -> io::Result<()> {
        // SAFETY: sockets are closed and buffers given back only when nothing is under way with them.
        while unsafe { self.submissions.push(&entry) }.is_err() {
            self.submit(0)?;
        }
        Ok(())
    }

    fn submit(&mut self, wait: usize) -> io::Result<()> {
        self.submissions.sync();
        match self.submitter.submit_and_wait(wait) {
            // Too many completions are waiting for us: we come to them.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY)) => {}
            result => drop(result?),
        }
        self.submissions.sync();
        Ok(())
    }
}

/// The buffers that the kernel picks from. They live as long as the program.
struct Buffers {
    entries: *mut BufRingEntry,
    bytes: Vec<u8>,
    tail: u16,
    free: usize,
}

impl Buffers {
    fn new(submitter: &Submitter) -> io::Result<Buffers> {
        const PAGE_BYTES: usize = 4096;
        let layout = Layout::array::<BufRingEntry>(BUFFERS as usize).and_then(|layout| layout.align_to(PAGE_BYTES));
        let layout = layout.map_err(io::Error::other)?;
        // SAFETY: the layout is not empty; zeroes are a valid entry; and it is never freed.
        let entries = unsafe {
            let entries = alloc_zeroed(layout).cast::<BufRingEntry>();
            if entries.is_null() {
                handle_alloc_error(layout);
            }
            submitter.register_buf_ring_with_flags(entries as u64, BUFFERS, GROUP, 0)?;
            entries
        };
        let bytes = vec![0; BUFFERS as usize * BUFFER_BYTES];
        let mut buffers = Buffers { entries, bytes, tail: 0, free: 0 };
        (0..BUFFERS).for_each(|buffer| buffers.give(buffer));
        buffers.publish();
        Ok(buffers)
    }

    fn bytes(&self, buffer: u16) -> *const u8 {
        &raw const self.bytes[buffer as usize * BUFFER_BYTES]
    }

    /// The kernel has picked it.
    fn taken(&mut self, _buffer: u16) {
        self.free -= 1;
    }

    /// The kernel may pick it again, when it is told so.
    fn give(&mut self, buffer: u16) {
        // SAFETY: the place is in the ring, and the kernel reads it only when the tail has passed it. The tail is in a
        // part of the first entry that setting these three does not touch.
        let entry = unsafe { &mut *self.entries.add((self.tail & (BUFFERS - 1)) as usize) };
        entry.set_addr(self.bytes(buffer) as u64);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        self.free += 1;
    }

    fn publish(&mut self) {
        // SAFETY: the ring is there, and the kernel only reads its tail.
        unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries).cast_mut()) }.store(self.tail, Ordering::Release);
    }
}
