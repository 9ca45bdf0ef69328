//! Memory for the raw layer, and its calls.

use super::{DEADLINE, WHILE};
use std::net::TcpStream as StdStream;
use wharf::raw::{self, Buffers, Completion, DeviceKind, RawBuffer, Sink};

/// Memory for raw operations. Never freed, so that whatever a broken library does with it, the row fails instead of the
/// process.
#[derive(Clone, Copy)]
pub struct Memory {
    pointer: *mut u8,
    length: usize,
}

impl Memory {
    pub fn new(content: &[u8]) -> Memory {
        let bytes = Box::leak(content.to_vec().into_boxed_slice());
        Memory { pointer: bytes.as_mut_ptr(), length: bytes.len() }
    }

    pub fn room(length: usize) -> Memory {
        Memory::new(&vec![0; length])
    }

    pub fn piece(&self) -> RawBuffer {
        RawBuffer { pointer: self.pointer, length: self.length }
    }

    pub fn one(&self) -> Buffers {
        Buffers::One(self.piece())
    }

    pub fn many(all: &[Memory]) -> Buffers {
        Buffers::Many(all.iter().map(Memory::piece).collect())
    }

    pub fn address(&self) -> usize {
        self.pointer.expose_provenance()
    }

    /// A copy of what is there. For when no operation uses it.
    #[allow(unsafe_code)]
    pub fn bytes(&self) -> Vec<u8> {
        // SAFETY: leaked in `new` with this length, and initialised; rows call this only when no operation is under
        // way.
        unsafe { std::slice::from_raw_parts(self.pointer, self.length) }.to_vec()
    }

    #[allow(unsafe_code)]
    pub fn fill(&self, byte: u8) {
        // SAFETY: as in `bytes`.
        unsafe { std::ptr::write_bytes(self.pointer, byte, self.length) };
    }
}

pub fn adopt(port: &raw::Port, socket: StdStream, key: usize) -> raw::Device {
    socket.set_nonblocking(true).unwrap();
    port.adopt(socket, DeviceKind::Stream, key).unwrap()
}

#[allow(unsafe_code)]
pub fn raw_receive(
    port: &raw::Port,
    device: &raw::Device,
    into: Buffers,
    token: usize,
    sink: Sink,
) -> Result<raw::Issued, i32> {
    // SAFETY: rows name `Memory` only, which is never freed and not looked at while an operation has it.
    unsafe { port.receive(device, into, token, sink) }
}

#[allow(unsafe_code)]
pub fn raw_peek(port: &raw::Port, device: &raw::Device, into: Buffers, token: usize) -> Result<raw::Issued, i32> {
    // SAFETY: as in `raw_receive`.
    unsafe { port.receive_with(device, into, raw::ReceiveFlags::PEEK, token, Sink::Port) }
}

#[allow(unsafe_code)]
pub fn raw_send(port: &raw::Port, device: &raw::Device, from: Buffers, token: usize) -> Result<raw::Issued, i32> {
    // SAFETY: as in `raw_receive`.
    unsafe { port.send(device, from, token, Sink::Port) }
}

#[track_caller]
pub fn raw_next(port: &raw::Port) -> Completion {
    port.get(Some(DEADLINE)).unwrap_or_else(|error| panic!("a packet was expected: {error:?}"))
}

#[track_caller]
pub fn raw_quiet(port: &raw::Port) {
    let got = port.get(Some(WHILE));
    assert!(matches!(got, Err(raw::GetError::TimedOut)), "a packet came that nobody may expect: {got:?}");
}
