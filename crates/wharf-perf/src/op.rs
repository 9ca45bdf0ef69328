//! What operations are for: the contexts of the port's packets, and the one place that hands packets to their owners.

use crate::flow::Flow;
use crate::latency::Pings;
use crate::server::{Guest, Refused, Server};
use crate::session::{Alarm, Session};
use std::sync::Arc;
use wharf::{CompletionPort, Event, Packet, WorkerPool, Workers};

pub(crate) type Port = CompletionPort<(), Op>;
pub(crate) type Stream = wharf::Stream<(), Op>;
pub(crate) type UdpSocket = wharf::UdpSocket<(), Op>;
pub(crate) type File = wharf::fs::File<(), Op>;

/// The context of an operation.
#[derive(Clone)]
pub(crate) enum Op {
    /// Nobody needs to hear.
    Nothing,
    /// A connection, at the server.
    Accept(Arc<Server>),
    /// A listener that failed is tried again.
    Rested(Arc<Server>, wharf::TcpListener<(), Op>),
    /// Bytes of a connection whose cookie is not complete.
    Guest(Arc<Guest>),
    /// It takes too long.
    GuestLate(Arc<Guest>),
    /// What a refused connection still sends.
    Refused(Arc<Refused>),
    /// That has lasted long enough.
    RefusedLate(Arc<Refused>),
    /// A datagram at the server's UDP port.
    Hello(Arc<Server>),
    /// No test for a while.
    Idle(Arc<Server>),
    /// Bytes of a control connection.
    Control(Arc<Session>),
    /// The client's control connection.
    Connect(Arc<Session>),
    /// The client's next stream.
    StreamUp(Arc<Session>),
    /// The client's hello was answered, or not.
    Answer(Arc<Session>),
    /// Data of a stream.
    Flow(Arc<Flow>),
    /// A stream's time to send has come.
    Pace(Arc<Flow>),
    /// The bytes or blocks that were wanted are there.
    Reached(Arc<Session>, u32),
    /// No stream sends any more.
    Quiet(Arc<Session>, u32),
    /// A time of the test.
    Alarm(Arc<Session>, Alarm, u64),
    /// Of the connection beside the streams.
    Ping(Arc<Pings>),
    /// Ctrl+C, at the client.
    Interrupt(Arc<Session>),
    /// Ctrl+C, at the server.
    Stop(Arc<Server>),
}

/// Workers that hand packets to their owners.
pub(crate) fn run(port: &Port, threads: Option<usize>) -> std::io::Result<WorkerPool> {
    let workers = threads.map_or_else(Workers::default, Workers::new).name("wharf perf");
    let own = port.clone();
    port.run(workers, move |packet| dispatch(&own, packet))
}

fn dispatch(port: &Port, packet: Packet<(), Op>) {
    let Packet { context, event, .. } = packet;
    match (context, event) {
        (Op::Flow(flow), event) => flow.completed(port, event),
        (Op::Pace(flow), _) => flow.resume(port),
        (Op::Control(session), Event::Received { buffer, result, .. }) => session.control(buffer, result),
        (Op::Connect(session), Event::Connected { stream, result }) => session.control_connected(stream, result),
        (Op::StreamUp(session), Event::Connected { stream, result }) => session.stream_connected(stream, result),
        (Op::Answer(session), Event::ReceivedFrom { socket, buffer, result, .. }) => {
            session.hello_answered(socket, buffer, result)
        }
        (Op::Reached(session, phase), _) => session.reached(phase),
        (Op::Quiet(session, phase), _) => session.quiet(phase),
        (Op::Alarm(session, alarm, token), Event::Elapsed { result: Ok(_) }) => session.alarm(alarm, token),
        (Op::Ping(pings), event) => pings.event(event),
        (Op::Interrupt(session), Event::Signal { result: Ok(_) }) => session.interrupted(),
        (Op::Accept(server), Event::Accepted { listener, result }) => server.accepted(listener, result),
        (Op::Rested(server, listener), Event::Elapsed { result: Ok(_) }) => server.accept(&listener),
        (Op::Guest(guest), Event::Received { buffer, result, .. }) => guest.received(buffer, result),
        (Op::GuestLate(guest), Event::Elapsed { result: Ok(_) }) => guest.late(),
        (Op::Refused(refused), Event::Received { buffer, result, .. }) => refused.received(buffer, result),
        (Op::RefusedLate(refused), _) => refused.late(),
        (Op::Hello(server), Event::ReceivedFrom { socket, buffer, from, result, .. }) => {
            server.hello(socket, buffer, from, result)
        }
        (Op::Idle(server), Event::Elapsed { result: Ok(_) }) => server.idle(),
        (Op::Stop(server), Event::Signal { result: Ok(_) }) => server.stop(),
        _ => {}
    }
}
