//! Typed packets of raw ones, and raw posts of typed ones.

use super::associate::Shared;
use super::fs::File;
use super::net::{Datagrams, FileMessage, Listener, Stream};
use super::packet::{Event, Packet};
use super::process::Child;
use super::record::{Memory, Record, RepeatRecord, TimerRecord};
use super::refused::{Unposted, UnpostedReason};
use super::{Context, Key, word};
use crate::op::buffer::Buffer;
use crate::raw::{Completion, Kind, Payload, Post};
use crate::sys::{Handle, Owned, errno};
use std::io;

#[inline]
pub(super) fn posted<K, C>(bytes: usize, key: K, context: C) -> Post {
    Post { key: word::pack(key), token: word::pack(context), bytes }
}

/// Makes a typed packet of what [`posted`] made.
#[inline]
#[allow(unsafe_code)]
pub(super) fn assemble_post<K: Key, C: Context>(Post { key, token, bytes }: Post) -> Packet<K, C> {
    // SAFETY: a port's posts are made by `posted::<K, C>`, the only caller of `raw::Port::post` for it, and each is
    // taken out once.
    let (key, context) = unsafe { (word::unpack::<K>(key), word::unpack::<C>(token)) };
    Packet { key, context, event: Event::Posted { bytes } }
}

pub(super) fn unposted<K: Key, C: Context>(post: Post, reason: UnpostedReason) -> Unposted<K, C> {
    let Packet { key, context, .. } = assemble_post(post);
    Unposted { reason, key, context }
}

/// Makes a typed packet of a raw one that this port's own calls issued.
pub(crate) fn assemble<K: Key, C: Context>(completion: Completion) -> Packet<K, C> {
    match completion.kind {
        Kind::Posted if completion.named_memory => {
            let (key, context) = TimerRecord::from_token(completion.token);
            Packet { key, context, event: Event::Posted { bytes: completion.bytes } }
        }
        Kind::Posted => {
            let Completion { key, token, bytes, .. } = completion;
            assemble_post(Post { key, token, bytes })
        }
        Kind::Elapsed | Kind::Signal => assemble_repeating(completion),
        _ => assemble_operation(completion),
    }
}

/// The packet of a timer or a signal.
fn assemble_repeating<K: Key, C: Context>(completion: Completion) -> Packet<K, C> {
    let Completion { token, bytes, error, kind, .. } = completion;
    let (key, context) =
        if RepeatRecord::<K, C>::is_token(token) { RepeatRecord::take(token) } else { TimerRecord::from_token(token) };
    let event = match kind {
        Kind::Signal => Event::Signal { result: ended(error, i32::try_from(bytes).unwrap_or(0)) },
        _ => Event::Elapsed { result: ended(error, bytes as u64) },
    };
    Packet { key, context, event }
}

#[allow(unsafe_code)]
fn owned<S: Owned>(handle: Handle) -> S {
    // SAFETY: an accepted connection's descriptor is owned by its packet, and this is the packet's one unpacking.
    unsafe { S::from_handle(handle) }
}

fn ended<T>(error: i32, value: T) -> io::Result<T> {
    if error == 0 { Ok(value) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// The packet of an operation of a device.
fn assemble_operation<K: Key, C: Context>(completion: Completion) -> Packet<K, C> {
    let Completion { key, token, bytes, error, kind, more: _, payload, device: _, named_memory } = completion;
    let (context, memory) = if named_memory {
        Record::from_token(token)
    } else {
        #[allow(unsafe_code)]
        // SAFETY: the token of an operation without memory was packed by `Shared::issue_plain`, with this C, and its
        // one completion is taken here.
        (unsafe { word::unpack::<C>(token) }, Memory::None)
    };
    #[allow(unsafe_code)]
    // SAFETY: every operation of the safe layer is issued with a handle held, on a device whose key is its address, and
    // this is its one completion.
    let shared = unsafe { Shared::<K, C>::from_key(key) };
    let key = shared.key.clone();
    let result = |value| ended(error, value);
    let event = match kind {
        Kind::Accepted => {
            let listener = Listener(shared);
            let local = listener.0.device.is_local();
            match payload {
                Payload::Accepted(accepted) => match accepted.peer {
                    Some(peer) => Event::Accepted { listener, result: Ok((owned(accepted.handle), peer)) },
                    None => Event::AcceptedLocal { listener, result: Ok(owned(accepted.handle)) },
                },
                _ if local => Event::AcceptedLocal { listener, result: Err(io::Error::from_raw_os_error(error)) },
                _ => Event::Accepted { listener, result: Err(io::Error::from_raw_os_error(error)) },
            }
        }
        Kind::Exited => {
            let child = Child(shared);
            Event::Exited { child, result: result(bytes).map(crate::sys::child_status) }
        }
        Kind::Connected => Event::Connected { stream: Stream(shared), result: result(0).map(drop) },
        Kind::Received => {
            let mut buffer = match payload {
                Payload::Pooled(buffer) => Buffer::pooled(buffer),
                _ => memory.into_one(),
            };
            // A receive that waits for all may fail with bytes.
            if error == 0 || bytes > 0 {
                buffer.received(bytes);
            }
            Event::Received { stream: Stream(shared), buffer, result: result(bytes) }
        }
        Kind::Readable => Event::Readable { stream: Stream(shared), result: result(0).map(drop) },
        Kind::Writable => Event::Writable { stream: Stream(shared), result: result(0).map(drop) },
        Kind::Sent => match memory {
            Memory::Many(buffers) => Event::SentVectored { stream: Stream(shared), buffers, result: result(bytes) },
            one => Event::Sent { stream: Stream(shared), buffer: one.into_one(), result: result(bytes) },
        },
        Kind::SentFile => {
            let Memory::File(message) = memory else { unreachable!("a send of a file has its message") };
            let result = match error {
                errno::ENODATA => Err(ended_early(bytes, &message)),
                _ => result(bytes),
            };
            Event::SentFile { stream: Stream(shared), message, result }
        }
        Kind::ReceivedFrom => {
            let (what, pooled) = match payload {
                Payload::Datagram(datagram) => (Some(datagram.0), datagram.1),
                _ => (None, None),
            };
            let mut buffer = pooled.map_or_else(|| memory.into_one(), Buffer::pooled);
            buffer.received(what.map_or(0, |what| what.bytes));
            let (from, segment_bytes) = what.map_or((None, 0), |what| (what.from, what.segment));
            Event::ReceivedFrom { socket: Datagrams(shared), buffer, from, segment_bytes, result: result(bytes) }
        }
        Kind::SentTo => Event::SentTo { socket: Datagrams(shared), buffer: memory.into_one(), result: result(bytes) },
        Kind::Read => {
            let mut buffer = memory.into_one();
            if error == 0 {
                buffer.received(bytes);
            }
            Event::Read { file: File(shared), buffer, result: result(bytes) }
        }
        Kind::Written => Event::Written { file: File(shared), buffer: memory.into_one(), result: result(bytes) },
        Kind::Synced => Event::Synced { file: File(shared), result: result(0).map(drop) },
        Kind::Disconnected => Event::Disconnected { stream: Stream(shared), result: result(0).map(drop) },
        Kind::Posted | Kind::Elapsed | Kind::Signal => unreachable!("no device has issued it"),
    };
    Packet { key, context, event }
}

fn ended_early(sent: usize, message: &FileMessage) -> io::Error {
    let of_file = sent.saturating_sub(message.head.len());
    let why = format!("the file ended {of_file} bytes behind offset {}: it has been truncated?", message.offset);
    io::Error::new(io::ErrorKind::UnexpectedEof, why)
}
