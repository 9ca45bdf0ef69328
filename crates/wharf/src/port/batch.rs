//! Packets that were taken together.

use super::assemble::{assemble, assemble_post};
use super::branch::take;
use super::packet::Packet;
use super::{Context, Key};
use crate::raw::{self, Completion, Entry};
use std::fmt;
use std::marker::PhantomData;

/// Packets that were taken together: see [`CompletionPort::get_many`](super::CompletionPort::get_many). Belongs to the
/// thread that took it.
pub struct Batch<K: Key, C: Context> {
    pub(super) port: raw::Port,
    /// The port's own.
    pub(super) first: Option<Completion>,
    pub(super) rest: raw::Rest<Entry>,
    // Not Send: the packets belong to the worker that took them.
    pub(super) types: PhantomData<*const (K, C)>,
}

impl<K: Key, C: Context> Batch<K, C> {
    /// How many packets are left at most. Others may take them back (see
    /// [`CompletionPort::get_many`](super::CompletionPort::get_many)), and a socket that seemed to have something may
    /// turn out to have nothing.
    pub fn len(&self) -> usize {
        if self.port.0.is_home() { self.rest.len() + usize::from(self.first.is_some()) } else { 0 }
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Key, C: Context> fmt::Debug for Batch<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} packets)", self.len())
    }
}

impl<K: Key, C: Context> Iterator for Batch<K, C> {
    type Item = Packet<K, C>;

    #[inline]
    fn next(&mut self) -> Option<Packet<K, C>> {
        if !self.port.0.is_home() {
            // A forked child: the packets are the parent's.
            return None;
        }
        if let Some(first) = self.first.take() {
            return Some(assemble(first));
        }
        loop {
            let completion = match self.rest.next()? {
                Entry::Post(post) => return Some(assemble_post(post)),
                other => self.port.0.execute(other).or_else(|| self.port.0.next_of(&self.rest))?,
            };
            // A branch's has been handled.
            if let Some(packet) = take(completion) {
                return Some(packet);
            }
        }
    }
}

impl<K: Key, C: Context> Drop for Batch<K, C> {
    fn drop(&mut self) {
        if !self.port.0.is_home() {
            return;
        }
        let first = self.first.take().map(|first| Entry::Packet(Box::new(first)));
        let rest = self.rest.drain();
        if first.is_some() || !rest.is_empty() {
            self.port.0.queue.give_back(first.into_iter().chain(rest));
        }
    }
}
