//! The fake engine's calls: what sockets in memory do, and the faults that a system may answer with.

use super::{Call, FIRST_HANDLE, Fake, State, When, pattern};
use crate::op::{Datagram, RawBuffer};
use crate::reactor::engine::{Calls, Handle, PIECES_MAX, Pieces, Readiness};
use crate::sys::errno::{
    EACCES, EAGAIN, ECONNABORTED, ECONNREFUSED, ECONNRESET, EINPROGRESS, EINVAL, EMFILE, ENFILE, ENOBUFS, ENOTCONN,
    EPIPE,
};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};

#[allow(unsafe_code)]
pub(super) fn write(piece: &RawBuffer, at: usize, byte: u8) {
    assert!(at < piece.length);
    // SAFETY: within the piece, which is the operation's alone until its packet (see `raw`); the fake writes it only
    // between the beginning and the end of a call that was given it.
    unsafe { piece.pointer.add(at).write(byte) };
}

#[allow(unsafe_code)]
pub(super) fn read<'a>(piece: &RawBuffer) -> &'a [u8] {
    if piece.length == 0 {
        return &[];
    }
    // SAFETY: the issuer of a send promised that these bytes are initialised and unchanged until its packet (see
    // `raw`); the slice lives for one call.
    unsafe { std::slice::from_raw_parts(piece.pointer, piece.length) }
}

impl Calls for Fake {
    fn open_stream(&self, _peer: &SocketAddr) -> Result<Handle, i32> {
        self.tell(Call::OpenStream, When::Before);
        let handle = {
            let mut net = self.net.lock();
            net.scripted(Call::OpenStream)?;
            net.open(State::Fresh)
        };
        self.tell(Call::OpenStream, When::After);
        Ok(handle)
    }

    fn receive(&self, handle: Handle, into: &[RawBuffer]) -> Result<usize, i32> {
        self.call(Call::Receive, handle, |net| {
            net.scripted(Call::Receive)?;
            let connection = net.stream(handle);
            let (again, short) = (net.faults.again, net.faults.short);
            let readable = net.connections[connection].bits() & Readiness::RECEIVE != 0;
            if readable && net.chance(again) {
                net.edge(handle, Readiness::RECEIVE);
                return Err(EAGAIN);
            }
            let into = &into[..into.len().min(PIECES_MAX)];
            let space: usize = into.iter().map(|piece| piece.length).sum();
            assert!(space > 0, "a receive without space cannot be told from the end of the stream");
            let one = &mut net.connections[connection];
            if one.unread() == 0 {
                return match one {
                    _ if std::mem::take(&mut one.error) => Err(ECONNRESET),
                    _ if one.reset || one.finished => Ok(0),
                    _ => Err(EAGAIN),
                };
            }
            let before_mark = one.urgent.filter(|&mark| mark > one.taken).map_or(u64::MAX, |mark| mark - one.taken);
            let mut bytes = (space as u64).min(one.unread()).min(before_mark) as usize;
            if bytes > 1 && net.chance(short) {
                bytes = net.rng.usize(1..bytes);
                // The rest arrives a moment later; where a sticky bit was reported, the port looks for itself.
                let told = net.socket(handle).reported & Readiness::STICKY != 0;
                if !told || net.rng.bool() {
                    net.edge(handle, Readiness::RECEIVE);
                }
            }
            let one = &mut net.connections[connection];
            let places = into.iter().flat_map(|piece| (0..piece.length).map(move |at| (piece, at)));
            for (piece, at) in places.take(bytes) {
                let byte = one.given.pop_front().unwrap_or_else(|| pattern(connection, one.taken));
                write(piece, at, byte);
                one.taken += 1;
            }
            Ok(bytes)
        })
    }

    fn receive_flagged(&self, handle: Handle, into: &[RawBuffer], urgent: bool, stays: bool) -> Result<usize, i32> {
        assert!(urgent || stays, "a plain receive");
        self.call(Call::Receive, handle, |net| {
            net.scripted(Call::Receive)?;
            if urgent {
                // The mark is in the stream, and has no byte of its own.
                return Err(EINVAL);
            }
            let connection = net.stream(handle);
            let one = &mut net.connections[connection];
            let space: usize = into.iter().map(|piece| piece.length).sum();
            let bytes = (space as u64).min(one.unread()) as usize;
            if one.unread() == 0 {
                return match one {
                    _ if std::mem::take(&mut one.error) => Err(ECONNRESET),
                    _ if one.reset || one.finished => Ok(0),
                    _ => Err(EAGAIN),
                };
            }
            let places = into.iter().flat_map(|piece| (0..piece.length).map(move |at| (piece, at)));
            for (nth, (piece, at)) in places.take(bytes).enumerate() {
                let given = one.given.get(nth).copied();
                write(piece, at, given.unwrap_or_else(|| pattern(connection, one.taken + nth as u64)));
            }
            Ok(bytes)
        })
    }

    fn peek(&self, handle: Handle) -> Result<(), i32> {
        self.call(Call::Peek, handle, |net| {
            net.scripted(Call::Peek)?;
            let connection = net.stream(handle);
            let again = net.faults.again;
            let readable = net.connections[connection].bits() & Readiness::RECEIVE != 0;
            if !readable || net.chance(again) {
                if readable {
                    net.edge(handle, Readiness::RECEIVE);
                }
                return Err(EAGAIN);
            }
            let one = &mut net.connections[connection];
            if one.unread() == 0 && std::mem::take(&mut one.error) {
                return Err(ECONNRESET);
            }
            one.peeked += 1;
            Ok(())
        })
    }

    fn send(&self, handle: Handle, from: &[RawBuffer], _more: bool) -> Result<usize, i32> {
        self.call(Call::Send, handle, |net| {
            net.scripted(Call::Send)?;
            let connection = net.stream(handle);
            let one = &mut net.connections[connection];
            if std::mem::take(&mut one.error) {
                return Err(ECONNRESET);
            }
            if one.reset || one.shut {
                return Err(EPIPE);
            }
            let from = &from[..from.len().min(PIECES_MAX)];
            let total: usize = from.iter().map(|piece| piece.length).sum();
            let space = one.space();
            if total == 0 {
                return Ok(0);
            }
            if space == 0 {
                one.wants_space = true;
                return Err(EAGAIN);
            }
            let (again, short) = (net.faults.again, net.faults.short);
            if net.chance(again) {
                net.edge(handle, Readiness::SEND);
                return Err(EAGAIN);
            }
            let mut bytes = total.min(space);
            if bytes > 1 && net.chance(short) {
                bytes = net.rng.usize(1..bytes);
                net.edge(handle, Readiness::SEND);
            } else if bytes < total {
                net.connections[connection].wants_space = true;
            }
            let one = &mut net.connections[connection];
            one.sent.extend(from.iter().flat_map(read).take(bytes));
            if one.gone {
                net.reset(connection, false);
            }
            Ok(bytes)
        })
    }

    fn send_file(&self, handle: Handle, file: Handle, offset: u64, count: u64) -> Result<usize, i32> {
        #[allow(unsafe_code)]
        // SAFETY: whoever issued the operation keeps the file open until it has completed.
        let file = unsafe { rustix::fd::BorrowedFd::borrow_raw(file) };
        let mut bytes = vec![0; usize::try_from(count).unwrap()];
        let read = rustix::io::pread(file, &mut bytes, offset).map_err(rustix::io::Errno::raw_os_error)?;
        let piece = RawBuffer { pointer: bytes.as_mut_ptr(), length: read };
        self.send(handle, &[piece], false)
    }

    fn receive_from(&self, handle: Handle, into: &[RawBuffer]) -> Result<Datagram, i32> {
        self.take(handle, into)
    }

    fn send_to(&self, handle: Handle, from: &[RawBuffer], to: Option<&SocketAddr>) -> Result<(), i32> {
        self.post(handle, from, to)
    }

    fn receive_many(&self, handle: Handle, into: &Pieces, found: &mut Vec<Datagram>) -> Result<(), i32> {
        self.take_many(handle, into, found)
    }

    fn send_many(&self, handle: Handle, from: &Pieces, to: &[Option<SocketAddr>]) -> Result<usize, i32> {
        self.post_many(handle, from, to)
    }

    fn keep_refusals(&self, handle: Handle, keep: bool) -> Result<(), i32> {
        self.list_refusals(handle, keep);
        Ok(())
    }

    fn refusal(&self, handle: Handle) -> Result<(i32, Option<SocketAddr>), i32> {
        self.next_refusal(handle)
    }

    fn has_peer(&self, handle: Handle) -> bool {
        self.is_connected(handle)
    }

    fn is_bound(&self, _handle: Handle) -> bool {
        true
    }

    // The fake network has sockets. The rest is tested with the real thing.

    fn read(&self, _handle: Handle, _into: &[RawBuffer]) -> Result<usize, i32> {
        unreachable!("only sockets are adopted with this engine")
    }

    fn write(&self, _handle: Handle, _from: &[RawBuffer]) -> Result<usize, i32> {
        unreachable!("only sockets are adopted with this engine")
    }

    fn is_readable(&self, _handle: Handle) -> Result<(), i32> {
        unreachable!("only sockets are adopted with this engine")
    }

    fn exit_status(&self, _handle: Handle) -> Result<i32, i32> {
        unreachable!("only sockets are adopted with this engine")
    }

    fn accept(&self, handle: Handle) -> Result<(Handle, Option<SocketAddr>), i32> {
        self.call(Call::Accept, handle, |net| {
            net.scripted(Call::Accept)?;
            let accept = net.faults.accept;
            let fault = net.chance(accept).then(|| net.rng.u8(..5));
            match fault {
                Some(0) => return Err(EMFILE),
                Some(1) => return Err(ENFILE),
                Some(2) => return Err(ENOBUFS),
                _ => {}
            }
            let State::Listener(backlog) = &mut net.socket(handle).state else { panic!("not a listener") };
            if backlog.is_empty() {
                return Err(EAGAIN);
            }
            if fault == Some(3) {
                net.edge(handle, Readiness::RECEIVE);
                return Err(EAGAIN);
            }
            let connection = backlog.pop_front().expect("not empty");
            if fault == Some(4) {
                net.connections[connection].closed = true;
                return Err(ECONNABORTED);
            }
            let accepted = net.open(State::Stream(connection));
            Ok((accepted, Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)))))
        })
    }

    fn connect(&self, handle: Handle, peer: &SocketAddr) -> Result<(), i32> {
        self.call(Call::Connect, handle, |net| {
            net.scripted(Call::Connect)?;
            assert!(matches!(net.socket(handle).state, State::Fresh), "a connect of what is no fresh socket");
            net.socket(handle).reported = 0;
            net.socket(handle).target = Some(*peer);
            let connect = net.faults.connect;
            if net.chance(connect) {
                match net.rng.u8(..5) {
                    0 => return Err(ECONNREFUSED),
                    1 => return Err(EACCES),
                    kind => {
                        let capacity = net.rng.usize(8..256);
                        let connection = net.new_connection(capacity);
                        net.connections[connection].handle = Some(handle);
                        net.connections[connection].target = Some(*peer);
                        net.socket(handle).state = State::Stream(connection);
                        // A registration from an earlier attempt reports it.
                        net.edge(handle, Readiness::SEND);
                        if kind == 2 {
                            net.reset(connection, true);
                            net.connections[connection].error = false;
                            return Err(ECONNRESET);
                        }
                        return Ok(());
                    }
                }
            }
            net.socket(handle).state = State::Connecting;
            Err(EINPROGRESS)
        })
    }

    fn connect_result(&self, handle: Handle) -> Result<(), i32> {
        self.call(Call::ConnectResult, handle, |net| {
            net.scripted(Call::ConnectResult)?;
            let again = net.faults.again;
            let state = match net.socket(handle).state {
                State::Stream(connection) => Ok(connection),
                State::Refused(error) => Err(error),
                _ => return Err(EAGAIN),
            };
            if net.chance(again) {
                net.edge(handle, Readiness::SEND);
                return Err(EAGAIN);
            }
            match state {
                // Made, and reset since, which is told once.
                Ok(connection) if std::mem::take(&mut net.connections[connection].error) => Err(ECONNRESET),
                Ok(_) => Ok(()),
                Err(error) => {
                    net.socket(handle).state = State::Fresh;
                    Err(error)
                }
            }
        })
    }

    fn abort_connect(&self, handle: Handle) {
        self.call(Call::AbortConnect, handle, |net| {
            if let State::Stream(connection) = std::mem::replace(&mut net.socket(handle).state, State::Fresh) {
                // It was made and nobody has heard of it: the peer sees a reset.
                let one = &mut net.connections[connection];
                one.closed = true;
                one.broken = true;
                one.handle = None;
            }
        });
    }

    fn unacknowledged(&self, handle: Handle) -> Option<u64> {
        let mut net = self.net.lock();
        let State::Stream(connection) = net.socket(handle).state else { return Some(0) };
        let one = &net.connections[connection];
        let unread = one.sent.len() - one.read;
        // The end comes behind all of it.
        Some(unread as u64 + u64::from(one.shut && unread > 0))
    }

    fn is_broken(&self, handle: Handle) -> bool {
        let mut net = self.net.lock();
        match net.socket(handle).state {
            State::Stream(connection) => net.connections[connection].error,
            State::Refused(_) => true,
            _ => false,
        }
    }

    fn reset_when_closed(&self, handle: Handle) {
        let mut net = self.net.lock();
        if let State::Stream(connection) = net.socket(handle).state {
            net.connections[connection].hard = true;
        }
    }

    fn shutdown(&self, handle: Handle, how: Shutdown) -> Result<(), i32> {
        assert_eq!(how, Shutdown::Write, "shutting the receive side is the port's own matter (row R-16)");
        self.call(Call::Shutdown, handle, |net| {
            net.scripted(Call::Shutdown)?;
            let connection = net.stream(handle);
            let one = &mut net.connections[connection];
            if one.reset {
                return Err(ENOTCONN);
            }
            assert!(!one.shut, "the sending side is shut twice");
            one.shut = true;
            Ok(())
        })
    }

    fn close(&self, handle: Handle) {
        self.tell(Call::Close, When::Before);
        let mut net = self.net.lock();
        let socket = net.socket(handle);
        assert_eq!(socket.calls, 0, "handle {handle} is closed while calls are under way: {:?}", socket.under_way);
        assert_eq!(socket.device, None, "handle {handle} is closed before it was deregistered");
        match socket.state {
            State::Stream(connection) => {
                let one = &mut net.connections[connection];
                one.closed = true;
                // As a kernel does: what its program did not receive is answered by a reset.
                one.broken = one.hard || one.unread() > 0;
                one.unread_when_closed = one.sent.len() - one.read;
                one.handle = None;
            }
            State::Mailbox(mailbox) => net.mailboxes[mailbox].close(),
            _ => {}
        }
        net.sockets[usize::try_from(handle - FIRST_HANDLE).unwrap()] = None;
        net.free.push(handle);
        drop(net);
        self.tell(Call::Close, When::After);
    }

    fn close_copy(&self, handle: Handle) {
        unreachable!("handle {handle} in a forked child: no test of this engine forks")
    }
}
