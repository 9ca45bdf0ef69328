//! What it means that nothing moves: that all has come which can, or that the test has failed.

use crate::protocol::parameters::Protocol;
use crate::session::test::TestSession;
use std::time::Duration;

/// In a test by amount over UDP, a sender that has sent all and lost some on the way stays silent: so long is enough …
const UDP_SILENCE: Duration = Duration::from_secs(2);
/// … and so long when the last numbers have not come either.
const UDP_SILENCE_MORE: Duration = Duration::from_secs(5);

/// Whether no more will come, though not all came that was wanted; `moved`: bytes so far, the last of them so long ago.
pub(super) fn is_complete(session: &TestSession, moved: u64, silence: Duration) -> bool {
    if session.measurement.is_omitting() {
        return false;
    }
    let parameters = &session.parameters;
    let wanted = parameters.blocks_wanted();
    // A sender that has sent what was wanted stays silent, though datagrams were lost on the way.
    let reverse_udp = parameters.reverse && parameters.protocol == Protocol::Udp;
    let all_sent = reverse_udp
        && moved > 0
        && wanted.is_some_and(|wanted| {
            let seen: u64 = session.streams.snapshots(false).iter().map(|stream| stream.packets).sum();
            silence >= if seen >= wanted { UDP_SILENCE } else { UDP_SILENCE_MORE }
        });
    // What a broken stream had in hand will not come any more; and a file ends once.
    let by_amount = wanted.is_some() || session.file.is_some();
    let mut over = session.streams.iter().map(|stream| stream.is_over());
    let broken = by_amount
        && match silence >= UDP_SILENCE {
            true => over.any(|over| over),
            false => over.all(|over| over),
        };
    all_sent || broken
}

/// Whether silence is a failure. A sender that stands still is as bad as a receiver, unless it has sent its file or is
/// to send less often. A test that has a time ends by it.
pub(super) fn must_move(session: &TestSession) -> bool {
    let by_amount = session.parameters.time == 0;
    session.streams.still_receive() || by_amount && session.streams.send_every(session.receive_timeout / 4)
}
