//! The work of a thread that supervises a port.

use super::execution::{Park, Port};
use crate::sync::Arc;
use crate::threads::{Tended, unbind};

/// Supervises until told to stop.
pub(crate) fn tend(port: &Port, park: &Arc<Park>) {
    loop {
        match port.queue.tend(park) {
            Tended::Stopped => return,
            Tended::EngineWork(entry) => port.do_work(entry),
            Tended::Grow => port.queue.pools.grow(),
            Tended::Nothing => {}
        }
    }
}

/// Makes the calling thread the port's supervisor, or who is when another one ends, until the port is closed.
pub(super) fn supervise(port: &Port) {
    // A forked child has none of the threads that it would supervise.
    if !port.is_home() {
        return;
    }
    // It is no worker of the port any more: it would be taken for one that never comes back.
    if port.is_worker() {
        unbind();
    }
    while !port.is_closed() {
        match port.queue.supervise() {
            Some(park) => tend(port, &park),
            None => port.queue.await_supervision(&Arc::new(Park::default())),
        }
    }
}
