//! The port of a test or a server: whose an operation is, and the one place that hands packets to their owners.

use std::io;
use std::sync::Arc;
use wharf::{CompletionPort, Event, Packet, WorkerPool, Workers};

pub(crate) type Port = CompletionPort<(), Op>;
pub(crate) type Stream = wharf::Stream<(), Op>;
pub(crate) type Listener = wharf::Listener<(), Op>;
pub(crate) type Datagrams = wharf::Datagrams<(), Op>;
pub(crate) type File = wharf::fs::File<(), Op>;

/// Whoever issues operations and hears of their ends.
pub(crate) trait Owner: Send + Sync {
    /// An operation has completed that was issued with this tag.
    fn completed(self: Arc<Self>, port: &Port, tag: u64, event: Event<(), Op>);
}

/// The context of an operation.
#[derive(Clone)]
pub(crate) enum Op {
    /// Nobody needs to hear.
    Nothing,
    /// This owner hears, and tells what it was for by the tag.
    Of(Arc<dyn Owner>, u64),
}

impl Op {
    /// For an owner whose operations differ by their events alone.
    pub(crate) fn of(owner: Arc<dyn Owner>) -> Op {
        Op::Of(owner, 0)
    }
}

/// Workers that hand packets to their owners.
pub(crate) fn run(port: &Port, threads: Option<usize>) -> io::Result<WorkerPool> {
    let workers = threads.map_or_else(Workers::default, Workers::new).name("wharf perf");
    let own = port.clone();
    port.start(workers, move |Packet { context, event, .. }| {
        if let Op::Of(owner, tag) = context {
            owner.completed(&own, tag, event);
        }
    })
}
