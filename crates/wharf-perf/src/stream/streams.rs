//! The streams of a test, as the test sees them: both ends of either kind by one name.

use super::base::{Carrier, StreamBase};
use super::payload::Payload;
use super::receiver::Receiver;
use super::send_control::SendControl;
use super::sender::Sender;
use crate::measure::figures::{Snapshot, StreamInfo};
use crate::protocol::parameters::Parameters;
use crate::protocol::results::Verification;
use crate::surroundings::port::{File, Port, Stream};
use std::sync::Arc;
use std::time::Duration;

/// One stream of a test.
pub(crate) enum TestStream {
    Sends(Arc<Sender>),
    Receives(Arc<Receiver>),
}

impl TestStream {
    /// A stream whose connection is there; what receives begins to.
    pub(crate) fn new(
        info: StreamInfo,
        carrier: Carrier,
        control: &Arc<SendControl>,
        parameters: &Parameters,
        payload: &Payload,
        file: Option<File>,
    ) -> TestStream {
        let sends = info.sends;
        let base = StreamBase::new(info, carrier, control, parameters, file);
        match sends {
            true => TestStream::Sends(Sender::new(base, parameters, payload)),
            false => TestStream::Receives(Receiver::begin(base, parameters, payload)),
        }
    }

    fn base(&self) -> &StreamBase {
        match self {
            TestStream::Sends(sender) => &sender.base,
            TestStream::Receives(receiver) => &receiver.base,
        }
    }

    pub(crate) fn info(&self) -> &StreamInfo {
        &self.base().info
    }

    pub(crate) fn sends(&self) -> bool {
        self.info().sends
    }

    pub(crate) fn tcp(&self) -> Option<&Stream> {
        self.base().tcp()
    }

    /// Payload bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.base().bytes()
    }

    /// The stream's counters. `tcp`: with what the kernel says; under the test's lock.
    pub(crate) fn snapshot(&self, tcp: bool) -> Snapshot {
        match self {
            TestStream::Sends(sender) => sender.snapshot(tcp),
            TestStream::Receives(receiver) => receiver.snapshot(),
        }
    }

    /// What the look at each received block has brought.
    pub(crate) fn verification(&self) -> Option<Verification> {
        match self {
            TestStream::Sends(_) => None,
            TestStream::Receives(receiver) => receiver.verification(),
        }
    }

    /// Why it ended before the test, if it did.
    pub(crate) fn broke(&self) -> Option<String> {
        self.base().broke()
    }

    /// Nothing moves on it any more: it broke, or its file is at the end.
    pub(crate) fn is_over(&self) -> bool {
        match self {
            TestStream::Sends(sender) => sender.is_over(),
            TestStream::Receives(receiver) => receiver.base.has_ended(),
        }
    }
}

/// All streams of a test.
#[derive(Default)]
pub(crate) struct Streams(Vec<TestStream>);

impl Streams {
    pub(crate) fn add(&mut self, stream: TestStream) {
        self.0.push(stream);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &TestStream> {
        self.0.iter()
    }

    pub(crate) fn infos(&self) -> Vec<StreamInfo> {
        self.iter().map(|stream| stream.info().clone()).collect()
    }

    pub(crate) fn ids(&self) -> Vec<i64> {
        self.iter().map(|stream| stream.info().id).collect()
    }

    /// The connections of TCP.
    pub(crate) fn tcp(&self) -> impl Iterator<Item = &Stream> {
        self.iter().filter_map(TestStream::tcp)
    }

    pub(crate) fn verification(&self, index: usize) -> Option<Verification> {
        self.0.get(index)?.verification()
    }

    /// The counters of each. `tcp`: with what the kernel says.
    pub(crate) fn snapshots(&self, tcp: bool) -> Vec<Snapshot> {
        self.iter().map(|stream| stream.snapshot(tcp)).collect()
    }

    /// Payload bytes in both directions.
    pub(crate) fn moved(&self) -> u64 {
        self.iter().map(TestStream::bytes).sum()
    }

    /// Payload bytes in one direction.
    pub(crate) fn moved_one_way(&self, sends: bool) -> u64 {
        self.iter().filter(|stream| stream.sends() == sends).map(TestStream::bytes).sum()
    }

    /// Some send.
    pub(crate) fn send(&self) -> bool {
        self.iter().any(TestStream::sends)
    }

    /// Some receive.
    pub(crate) fn receive(&self) -> bool {
        self.iter().any(|stream| !stream.sends())
    }

    /// Some receive, and can.
    pub(crate) fn still_receive(&self) -> bool {
        self.iter().any(|stream| !stream.sends() && !stream.is_over())
    }

    /// Some send, can, and do not wait longer than this between two sends by themselves.
    pub(crate) fn send_every(&self, time: Duration) -> bool {
        self.iter().any(|stream| match stream {
            TestStream::Sends(sender) => !sender.is_over() && sender.pause() < time,
            TestStream::Receives(_) => false,
        })
    }

    /// Some write what arrived to a file, and have not written all of it yet.
    pub(crate) fn is_storing(&self) -> bool {
        self.iter().any(|stream| match stream {
            TestStream::Sends(_) => false,
            TestStream::Receives(receiver) => receiver.is_storing(),
        })
    }

    /// Those that send begin to.
    pub(crate) fn begin_sending(&self, port: &Port) {
        for stream in self.iter() {
            if let TestStream::Sends(sender) = stream {
                sender.clone().begin(port);
            }
        }
    }

    pub(crate) fn close(&self) {
        self.iter().for_each(|stream| stream.base().close());
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
