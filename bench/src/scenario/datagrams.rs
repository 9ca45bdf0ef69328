//! Datagrams from one socket to another on the loopback, in bursts, beside bare system calls.
//!
//! One thread sends a burst and receives it, so nothing is lost, nobody sleeps, and what is measured is the way of a
//! datagram through both sockets. `wharf` issues a send and a receive for each and takes a packet for each, except
//! where the sender's socket skips packets on success, as its name says.

use crate::lab::Lab;
use crate::measure::{Plan, Sample, all_in_turns, ratios, rows, thread_cpu_us};
use crate::rows::{AGAIN, Goal, Report, Wanted};
use crate::stats::median;
use std::io;
use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::os::fd::AsRawFd;
use std::time::Instant;
use wharf::{Buffer, CompletionPort, Event, Outcome, Packet};

/// Datagrams in a burst: less than a receive buffer of the usual size holds.
const BURST: usize = 64;
/// Bytes that one segmented send may have.
const SEGMENTED_MAX: usize = 60_000;

const NAMES: [&str; 9] = [
    "wharf, batches",
    "wharf, batches, skip",
    "wharf, single calls",
    "wharf, single calls, skip",
    "wharf, GSO and GRO",
    "sendto, recvfrom",
    "sendmmsg, recvmmsg",
    "sendto, recvfrom, GSO and GRO",
    AGAIN,
];

pub fn run(lab: &Lab) -> io::Result<Report> {
    let plan = Plan::within(lab.pick(12.0, 15.0));
    let bursts = lab.pick(150, 1000);
    let mut report = Report::default();
    for bytes in [64, 1200] {
        let case = format!("{bytes} bytes");
        if !lab.has_time(&case, 13.0) {
            continue;
        }
        lab.case(&case);
        let samples = all_in_turns(lab, NAMES.len(), plan, |system| match system {
            0 | 8 => Pair::new(bytes, false, false)?.measure(bursts, Pair::batch),
            1 => Pair::new(bytes, true, false)?.measure(bursts, Pair::batch),
            2 => Pair::new(bytes, false, false)?.measure(bursts, Pair::singles),
            3 => Pair::new(bytes, true, false)?.measure(bursts, Pair::singles),
            4 => Pair::new(bytes, true, true)?.measure(bursts, Pair::segmented),
            5 => bare(bytes, bursts),
            6 => bare_many(bytes, bursts),
            _ => bare_segmented(bytes, bursts),
        })?;
        report.rows.extend(rows("datagrams", &case, &NAMES, &samples));
        let cpu =
            |of: usize, by: usize| median(&ratios(&samples[of], &samples[by], |sample| sample.cpu_us_per_message));
        let mut goal = |of: usize, by: usize, most: f64| {
            let what = format!("{bytes} bytes: {}, cpu of {}'s", NAMES[of], NAMES[by]);
            report.goals.push(Goal::new(what, cpu(of, by), Wanted::AtMost(most)));
        };
        goal(1, 6, 1.5);
        goal(0, 2, 1.0);
        goal(4, 7, 1.5);
    }
    Ok(report)
}

fn timed(bursts: usize, mut burst: impl FnMut() -> io::Result<()>) -> io::Result<Sample> {
    // Memory and caches as in a program that has run for a while.
    for _ in 0..20 {
        burst()?;
    }
    let (begin, cpu) = (Instant::now(), thread_cpu_us());
    for _ in 0..bursts {
        burst()?;
    }
    let count = (bursts * BURST) as f64;
    Ok(Sample {
        messages_per_second: Some(count / begin.elapsed().as_secs_f64()),
        cpu_us_per_message: Some((thread_cpu_us() - cpu) / count),
        ..Sample::default()
    })
}

/// Sizes of the sends that make up a burst with segmentation.
fn segmented(bytes: usize) -> impl Iterator<Item = usize> {
    let most = SEGMENTED_MAX / bytes;
    (0..BURST).step_by(most).map(move |from| most.min(BURST - from) * bytes)
}

// --- Through a port ---

type Socket = wharf::Datagrams<(), ()>;

struct Pair {
    port: CompletionPort<(), ()>,
    sender: Socket,
    receiver: Socket,
    to: SocketAddr,
    bytes: usize,
    /// Memory that no operation has.
    outgoing: Vec<Vec<u8>>,
    incoming: Vec<Vec<u8>>,
}

impl Pair {
    fn new(bytes: usize, skip: bool, offload: bool) -> io::Result<Pair> {
        let port = CompletionPort::<(), ()>::options().concurrency(1).build()?;
        let sender: Socket = port.bind("127.0.0.1:0", ())?;
        let receiver: Socket = port.bind("127.0.0.1:0", ())?;
        if skip {
            sender.skip_on_success();
        }
        if offload {
            sender.set_segment_bytes(Some(bytes as u16))?;
            receiver.set_receive_offload(true)?;
        }
        let to = receiver.local_addr()?;
        let space = if offload { 65_536 } else { 2048 };
        let outgoing = match offload {
            true => segmented(bytes).map(|bytes| vec![1; bytes]).collect(),
            false => vec![vec![1; bytes]; BURST],
        };
        let incoming =
            (0..outgoing.len().max(if offload { 4 } else { BURST })).map(|_| Vec::with_capacity(space)).collect();
        Ok(Pair { port, sender, receiver, to, bytes, outgoing, incoming })
    }

    fn measure(mut self, bursts: usize, burst: fn(&mut Pair) -> io::Result<()>) -> io::Result<Sample> {
        timed(bursts, || burst(&mut self))
    }

    fn batch(&mut self) -> io::Result<()> {
        for receive in self.receiver.recv_from_many(self.incoming.drain(..).map(|memory| (memory, ()))) {
            receive?;
        }
        let to = self.to;
        let mut missing = BURST;
        for send in self.sender.send_to_many(self.outgoing.drain(..).map(|memory| (memory, to, ()))) {
            if let Outcome::Done(packet) = send? {
                done(&mut self.outgoing, &mut self.incoming, packet)?;
            }
        }
        while missing > 0 || self.outgoing.len() < BURST {
            for packet in self.port.get_many(BURST)? {
                missing -= done(&mut self.outgoing, &mut self.incoming, packet)? / self.bytes;
            }
        }
        Ok(())
    }

    fn singles(&mut self) -> io::Result<()> {
        for memory in self.incoming.drain(..) {
            self.receiver.recv_from(memory, ())?;
        }
        let mut missing = BURST;
        for memory in std::mem::take(&mut self.outgoing) {
            if let Outcome::Done(packet) = self.sender.send_to(memory, self.to, ())? {
                done(&mut self.outgoing, &mut self.incoming, packet)?;
            }
        }
        while missing > 0 || self.outgoing.len() < BURST {
            missing -= done(&mut self.outgoing, &mut self.incoming, self.port.get()?)? / self.bytes;
        }
        Ok(())
    }

    /// As many receives as turn out to be needed.
    fn segmented(&mut self) -> io::Result<()> {
        let mut missing = BURST;
        for memory in std::mem::take(&mut self.outgoing) {
            if let Outcome::Done(packet) = self.sender.send_to(memory, self.to, ())? {
                done(&mut self.outgoing, &mut self.incoming, packet)?;
            }
        }
        while missing > 0 {
            let memory =
                self.incoming.pop().ok_or_else(|| io::Error::other("a burst in more pieces than was thought"))?;
            self.receiver.recv_from(memory, ())?;
            missing -= done(&mut self.outgoing, &mut self.incoming, self.port.get()?)? / self.bytes;
        }
        Ok(())
    }
}

/// Takes an operation's memory back; returns the bytes it received.
fn done(outgoing: &mut Vec<Vec<u8>>, incoming: &mut Vec<Vec<u8>>, packet: Packet<(), ()>) -> io::Result<usize> {
    let back = |buffer: Buffer| buffer.into_vec();
    match packet.event {
        Event::SentTo { buffer, result, .. } => {
            result?;
            outgoing.push(back(buffer));
            Ok(0)
        }
        Event::ReceivedFrom { buffer, result, .. } => {
            let bytes = result?;
            let mut memory = back(buffer);
            memory.clear();
            incoming.push(memory);
            Ok(bytes)
        }
        other => Err(io::Error::other(format!("{other:?}"))),
    }
}

// --- Bare ---

fn bare_pair() -> io::Result<(StdSocket, StdSocket, SocketAddr)> {
    let (sender, receiver) = (StdSocket::bind("127.0.0.1:0")?, StdSocket::bind("127.0.0.1:0")?);
    receiver.set_nonblocking(true)?;
    let to = receiver.local_addr()?;
    Ok((sender, receiver, to))
}

fn bare(bytes: usize, bursts: usize) -> io::Result<Sample> {
    let (sender, receiver, to) = bare_pair()?;
    let (outgoing, mut incoming) = (vec![1; bytes], vec![0; 2048]);
    timed(bursts, || {
        for _ in 0..BURST {
            sender.send_to(&outgoing, to)?;
        }
        for _ in 0..BURST {
            receiver.recv_from(&mut incoming)?;
        }
        Ok(())
    })
}

fn bare_segmented(bytes: usize, bursts: usize) -> io::Result<Sample> {
    let (sender, receiver, to) = bare_pair()?;
    set_option(&sender, libc::UDP_SEGMENT, bytes as i32)?;
    set_option(&receiver, libc::UDP_GRO, 1)?;
    let outgoing: Vec<Vec<u8>> = segmented(bytes).map(|bytes| vec![1; bytes]).collect();
    let mut incoming = vec![0; 65_536];
    timed(bursts, || {
        for bytes in &outgoing {
            sender.send_to(bytes, to)?;
        }
        let mut missing = BURST * bytes;
        while missing > 0 {
            missing -= receiver.recv_from(&mut incoming)?.0;
        }
        Ok(())
    })
}

#[allow(unsafe_code)]
fn set_option(socket: &StdSocket, option: i32, value: i32) -> io::Result<()> {
    let value = std::ptr::from_ref(&value).cast();
    // SAFETY: the value is an int that lives for the length of the call, and the socket is open.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, option, value, 4) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// As quick as the system allows: everything is prepared once.
#[allow(unsafe_code)]
fn bare_many(bytes: usize, bursts: usize) -> io::Result<Sample> {
    let (sender, receiver, to) = bare_pair()?;
    let mut memory = vec![1; BURST * 2048];
    let SocketAddr::V4(to) = to else { unreachable!("bound to IPv4") };
    // SAFETY: all-zero is a valid value of these plain C structures.
    let (mut address, empty): (libc::sockaddr_in, libc::mmsghdr) = unsafe { std::mem::zeroed() };
    address.sin_family = libc::AF_INET as libc::sa_family_t;
    address.sin_port = to.port().to_be();
    address.sin_addr.s_addr = u32::from(*to.ip()).to_be();
    let mut senders = [address; BURST];
    let base = memory.as_mut_ptr();
    let piece = |at: usize, length| libc::iovec { iov_base: base.wrapping_add(at * 2048).cast(), iov_len: length };
    let mut outgoing: Vec<libc::iovec> = (0..BURST).map(|at| piece(at, bytes)).collect();
    let mut incoming: Vec<libc::iovec> = (0..BURST).map(|at| piece(at, 2048)).collect();
    let headers = |pieces: &mut [libc::iovec], addresses: &mut [libc::sockaddr_in]| -> Vec<libc::mmsghdr> {
        let header = |(piece, address): (&mut libc::iovec, &mut libc::sockaddr_in)| {
            let mut header = empty;
            header.msg_hdr.msg_name = std::ptr::from_mut(address).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            header.msg_hdr.msg_iov = piece;
            header.msg_hdr.msg_iovlen = 1;
            header
        };
        pieces.iter_mut().zip(addresses).map(header).collect()
    };
    let mut to = [address; BURST];
    let mut outgoing = headers(&mut outgoing, &mut to);
    let mut incoming = headers(&mut incoming, &mut senders);
    let all = |count: i32| if count == BURST as i32 { Ok(()) } else { Err(io::Error::last_os_error()) };
    let sample = timed(bursts, || {
        // SAFETY: the headers name memory that lives here and is as long as they say; there are BURST of them.
        all(unsafe { libc::sendmmsg(sender.as_raw_fd(), outgoing.as_mut_ptr(), BURST as u32, 0) })?;
        // SAFETY: as above. A null time is none.
        all(unsafe {
            libc::recvmmsg(receiver.as_raw_fd(), incoming.as_mut_ptr(), BURST as u32, 0, std::ptr::null_mut())
        })
    });
    drop(memory);
    sample
}
