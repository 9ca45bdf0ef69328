//! The book-keeping between a stream's counters and the rows of a report. It knows no clock and no socket: it is given
//! seconds and [`Snapshot`]s.

use super::figures::{Half, Interval, RoundTrips, Row, Snapshot, StreamInfo};
use crate::protocol::parameters::Protocol;
use crate::protocol::results::{StreamResult, Verification};

/// The book of one test at one end.
#[derive(Debug)]
pub struct Book {
    protocol: Protocol,
    pages: Vec<Page>,
    /// When the interval that is running began.
    last_tick: f64,
}

#[derive(Debug, Default)]
struct Page {
    id: i64,
    sends: bool,
    /// At the end of the time that does not count.
    base: Snapshot,
    /// At the last tick.
    last: Snapshot,
    samples: u64,
    rtt_sum: u64,
    trips: RoundTrips,
}

impl Page {
    fn sample(&mut self, now: &Snapshot) {
        let Some(tcp) = now.tcp else { return };
        self.samples += 1;
        self.rtt_sum += tcp.rtt;
        let trips = &mut self.trips;
        trips.max = trips.max.max(tcp.rtt);
        trips.min = if self.samples == 1 { tcp.rtt } else { trips.min.min(tcp.rtt) };
        trips.mean = self.rtt_sum / self.samples;
        trips.max_congestion_window = trips.max_congestion_window.max(tcp.congestion_window);
        trips.max_send_window = trips.max_send_window.max(tcp.send_window);
        trips.reordered = tcp.reordered;
    }
}

impl Book {
    /// For these streams.
    pub fn new(protocol: Protocol, streams: &[StreamInfo]) -> Book {
        let page = |stream: &StreamInfo| Page { id: stream.id, sends: stream.sends, ..Page::default() };
        Book { protocol, pages: streams.iter().map(page).collect(), last_tick: 0.0 }
    }

    /// The omitted time is over, or the test begins: count from these.
    pub fn begin(&mut self, now: &[Snapshot]) {
        for (page, now) in self.pages.iter_mut().zip(now) {
            page.base = *now;
            page.last = *now;
        }
        self.last_tick = 0.0;
    }

    /// When the interval that is running began.
    pub fn last_tick(&self) -> f64 {
        self.last_tick
    }

    /// Whether a stream moved something since the last tick.
    pub fn moved(&self, now: &[Snapshot]) -> bool {
        self.pages.iter().zip(now).any(|(page, now)| now.bytes > page.last.bytes)
    }

    /// An interval ends at `seconds` after the last [`begin`](Book::begin).
    pub fn tick(&mut self, seconds: f64, omitted: bool, now: &[Snapshot]) -> Interval {
        let (start, end) = (self.last_tick, seconds);
        self.last_tick = seconds;
        let mut interval = Interval::default();
        for (page, now) in self.pages.iter_mut().zip(now) {
            page.sample(now);
            let last = std::mem::replace(&mut page.last, *now);
            let retransmits = now.tcp.filter(|_| page.sends).map(|tcp| {
                let before = last.tcp.map_or(0, |tcp| tcp.retransmits);
                tcp.retransmits.saturating_sub(before)
            });
            interval.rows.push(Row {
                id: Some(page.id),
                sends: page.sends,
                omitted,
                start,
                end,
                bytes: now.bytes.saturating_sub(last.bytes),
                retransmits,
                tcp: now.tcp.filter(|_| page.sends),
                packets: now.packets.saturating_sub(last.packets),
                lost: difference(now.lost, last.lost),
                jitter: now.jitter,
            });
        }
        for sends in [true, false] {
            let rows: Vec<&Row> = interval.rows.iter().filter(|row| row.sends == sends).collect();
            if rows.is_empty() {
                continue;
            }
            let mut sum = Row { sends, omitted, start, end, ..Row::default() };
            for row in &rows {
                sum.bytes += row.bytes;
                sum.packets = sum.packets.saturating_add(row.packets);
                sum.lost = sum.lost.saturating_add(row.lost);
                sum.jitter += row.jitter / rows.len() as f64;
                sum.retransmits = row.retransmits.map(|count| sum.retransmits.unwrap_or(0) + count);
            }
            interval.sums.push(sum);
        }
        interval
    }

    /// The test ends with these: a test without intervals has its one sample here.
    pub fn close(&mut self, now: &[Snapshot]) {
        for (page, now) in self.pages.iter_mut().zip(now).filter(|(page, _)| page.samples == 0) {
            page.sample(now);
        }
    }

    /// This end's total of each stream, `seconds` after the last [`begin`](Book::begin).
    pub fn totals(&self, seconds: f64, now: &[Snapshot]) -> Vec<Half> {
        let half = |(page, now): (&Page, &Snapshot)| {
            let retransmits = match (page.sends, now.tcp) {
                (true, Some(tcp)) => {
                    let before = page.base.tcp.map_or(0, |tcp| tcp.retransmits);
                    tcp.retransmits.saturating_sub(before) as i64
                }
                _ => -1,
            };
            Half {
                known: true,
                seconds,
                bytes: now.bytes.saturating_sub(page.base.bytes),
                retransmits,
                jitter: now.jitter,
                lost: difference(now.lost, page.base.lost),
                packets: difference(now.packets, page.base.packets).max(0),
                out_of_order: now.out_of_order.saturating_sub(page.base.out_of_order),
            }
        };
        self.pages.iter().zip(now).map(half).collect()
    }

    /// The same as the peer wants to hear it: datagrams with the omitted ones, and those beside.
    pub fn results(
        &self,
        seconds: f64,
        now: &[Snapshot],
        verification: impl Fn(usize) -> Option<Verification>,
    ) -> Vec<StreamResult> {
        let udp = self.protocol == Protocol::Udp;
        let totals = self.totals(seconds, now);
        let result = |(index, (page, now)): (usize, (&Page, &Snapshot))| {
            let receives = udp && !page.sends;
            let count = |value: u64, counts: bool| if counts { i64::try_from(value).unwrap_or(i64::MAX) } else { 0 };
            StreamResult {
                id: page.id,
                bytes: Some(totals[index].bytes),
                retransmits: totals[index].retransmits,
                jitter: if receives { now.jitter } else { 0.0 },
                errors: count(now.lost, receives),
                omitted_errors: count(page.base.lost, receives),
                packets: count(now.packets, udp),
                omitted_packets: count(page.base.packets, udp),
                seconds,
                verification: verification(index),
            }
        };
        self.pages.iter().zip(now).enumerate().map(result).collect()
    }

    /// Round trips of a stream, if this end saw them.
    pub fn round_trips(&self, index: usize) -> Option<RoundTrips> {
        let page = self.pages.get(index)?;
        (page.sends && page.samples > 0).then_some(page.trips)
    }
}

/// What was added, or taken away; numbers of 64 bits may be anything.
fn difference(now: u64, before: u64) -> i64 {
    let difference = i128::from(now) - i128::from(before);
    i64::try_from(difference).unwrap_or(if difference < 0 { i64::MIN } else { i64::MAX })
}

/// The peer's account of a stream.
pub fn remote_half(result: &StreamResult, otherwise_seconds: f64) -> Half {
    Half {
        known: result.bytes.is_some(),
        seconds: if result.seconds > 0.0 { result.seconds } else { otherwise_seconds },
        bytes: result.bytes.unwrap_or(0),
        retransmits: result.retransmits,
        jitter: result.jitter.max(0.0),
        lost: result.errors.saturating_sub(result.omitted_errors),
        packets: result.packets.saturating_sub(result.omitted_packets),
        out_of_order: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::TcpSample;
    use super::*;

    fn info(id: i64, sends: bool) -> StreamInfo {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        StreamInfo { id, sends, local: address, peer: address }
    }

    fn tcp(bytes: u64, retransmits: u64, rtt: u64) -> Snapshot {
        Snapshot { bytes, tcp: Some(TcpSample { retransmits, rtt, ..TcpSample::default() }), ..Snapshot::default() }
    }

    #[test]
    fn intervals_are_differences_and_what_is_omitted_does_not_count() {
        let mut book = Book::new(Protocol::Tcp, &[info(1, true), info(3, true)]);
        book.begin(&[Snapshot::default(); 2]);
        let omitted = book.tick(1.0, true, &[tcp(100, 1, 10), tcp(50, 0, 20)]);
        assert_eq!((omitted.sums[0].bytes, omitted.sums[0].retransmits, omitted.sums[0].omitted), (150, Some(1), true));
        book.begin(&[tcp(100, 1, 10), tcp(50, 0, 20)]);
        let first = book.tick(1.0, false, &[tcp(300, 4, 30), tcp(60, 0, 20)]);
        assert_eq!((first.rows[0].bytes, first.rows[0].retransmits), (200, Some(3)));
        assert_eq!((first.rows[0].start, first.rows[0].end, first.rows[0].rate()), (0.0, 1.0, 1600.0));
        let totals = book.totals(2.0, &[tcp(400, 5, 30), tcp(60, 0, 20)]);
        assert_eq!((totals[0].bytes, totals[0].retransmits, totals[1].bytes), (300, 4, 10));
        let trips = book.round_trips(0).unwrap();
        assert_eq!((trips.min, trips.max, trips.mean), (10, 30, 20));
    }

    #[test]
    fn a_test_without_intervals_has_round_trips() {
        let mut book = Book::new(Protocol::Tcp, &[info(1, true), info(3, false)]);
        book.begin(&[Snapshot::default(); 2]);
        book.close(&[tcp(100, 0, 70), Snapshot::default()]);
        assert_eq!((book.round_trips(0).unwrap().mean, book.round_trips(1)), (70, None));
        // Where there were intervals, they are what counts.
        book.close(&[tcp(100, 0, 90), Snapshot::default()]);
        assert_eq!(book.round_trips(0).unwrap().max, 70);
    }

    #[test]
    fn the_peer_hears_datagrams_with_the_omitted_ones() {
        let udp = |packets, lost| Snapshot { bytes: packets * 1000, packets, lost, ..Snapshot::default() };
        let mut book = Book::new(Protocol::Udp, &[info(1, false)]);
        book.begin(&[udp(126, 2)]);
        let results = book.results(1.0, &[udp(251, 5)], |_| None);
        let stream = &results[0];
        assert_eq!((stream.bytes, stream.packets, stream.omitted_packets), (Some(125_000), 251, 126));
        assert_eq!((stream.errors, stream.omitted_errors), (5, 2));
        let half = remote_half(stream, 0.0);
        assert_eq!((half.packets, half.lost, half.bytes), (125, 3, 125_000));
    }

    #[test]
    fn each_direction_has_its_sum() {
        let mut book = Book::new(Protocol::Tcp, &[info(1, true), info(3, false)]);
        book.begin(&[Snapshot::default(); 2]);
        let plain = |bytes| Snapshot { bytes, ..Snapshot::default() };
        let interval = book.tick(1.0, false, &[plain(10), plain(20)]);
        let sums: Vec<_> = interval.sums.iter().map(|sum| (sum.sends, sum.bytes, sum.retransmits)).collect();
        assert_eq!(sums, [(true, 10, None), (false, 20, None)]);
    }
}
