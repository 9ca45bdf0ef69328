//! The queues: a port, and the crates that a program would use where it needs a queue and nothing else.

use super::Item;
use std::io;
use wharf::{CompletionPort, Event, Packet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    Wharf,
    Crossbeam,
    Flume,
    Kanal,
    /// With one consumer only.
    Std,
}

/// The sending side.
pub trait Posts: Send {
    /// False: nobody will take it any more.
    fn post(&self, item: Item) -> bool;
    fn another(&self) -> Box<dyn Posts>;
}

/// The receiving side, one consumer's.
pub trait Packets: Send {
    /// Waits for an item, and takes up to `most` that are there.
    fn take(&mut self, most: usize, each: &mut dyn FnMut(Item));
}

type Both = (Box<dyn Posts>, Vec<Box<dyn Packets>>);

impl Queue {
    /// Without a bound, with this number of consumers.
    pub fn open(self, consumers: usize) -> io::Result<Both> {
        fn both<P: Posts + 'static, C: Packets + Clone + 'static>((posts, take): (P, C), consumers: usize) -> Both {
            (Box::new(posts), (0..consumers).map(|_| Box::new(take.clone()) as Box<dyn Packets>).collect())
        }
        Ok(match self {
            Queue::Wharf => {
                let port: Port = Port::options().concurrency(consumers).build()?;
                both((port.clone(), port), consumers)
            }
            Queue::Crossbeam => both(crossbeam_channel::unbounded(), consumers),
            Queue::Flume => both(flume::unbounded(), consumers),
            Queue::Kanal => both(kanal::unbounded(), consumers),
            Queue::Std => {
                if consumers > 1 {
                    return Err(io::Error::other("std's channel has one consumer"));
                }
                let (posts, takes) = std::sync::mpsc::channel::<Item>();
                (Box::new(posts), vec![Box::new(takes)])
            }
        })
    }
}

type Port = CompletionPort<usize, usize>;

impl Posts for Port {
    fn post(&self, (bytes, key, context): Item) -> bool {
        CompletionPort::post(self, bytes, key, context).is_ok()
    }

    fn another(&self) -> Box<dyn Posts> {
        Box::new(self.clone())
    }
}

impl Packets for Port {
    fn take(&mut self, most: usize, each: &mut dyn FnMut(Item)) {
        if most == 1 {
            return each(item(self.get().expect("the port is open")));
        }
        self.get_many(most).expect("the port is open").for_each(|packet| each(item(packet)));
    }
}

fn item(packet: Packet<usize, usize>) -> Item {
    match packet.event {
        Event::Posted { bytes } => (bytes, packet.key, packet.context),
        other => unreachable!("only posts go in, and {other:?} came out"),
    }
}

/// The crates' channels are alike, but for their names.
macro_rules! channel {
    ($sender:ty, $receiver:ty, $more:expr) => {
        impl Posts for $sender {
            fn post(&self, item: Item) -> bool {
                self.send(item).is_ok()
            }

            fn another(&self) -> Box<dyn Posts> {
                Box::new(self.clone())
            }
        }

        impl Packets for $receiver {
            fn take(&mut self, most: usize, each: &mut dyn FnMut(Item)) {
                each(self.recv().expect("there is a sender"));
                let more: fn(&$receiver) -> Option<Item> = $more;
                for _ in 1..most {
                    match more(self) {
                        Some(item) => each(item),
                        None => return,
                    }
                }
            }
        }
    };
}

channel!(crossbeam_channel::Sender<Item>, crossbeam_channel::Receiver<Item>, |receiver| receiver.try_recv().ok());
channel!(flume::Sender<Item>, flume::Receiver<Item>, |receiver| receiver.try_recv().ok());
channel!(kanal::Sender<Item>, kanal::Receiver<Item>, |receiver| receiver.try_recv().ok().flatten());
channel!(std::sync::mpsc::Sender<Item>, std::sync::mpsc::Receiver<Item>, |receiver| receiver.try_recv().ok());
