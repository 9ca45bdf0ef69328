//! What is fuzzed of everything that a stranger can send: each target is a plain function of some bytes that panics
//! when a rule is broken. `tests/fuzz.rs` calls them in `cargo test`, the programs in `fuzz_targets/` under libfuzzer.

use serde_json::Value;
use std::cell::RefCell;
use std::time::{Duration, SystemTime};
use wharf_perf::measure::account::Account;
use wharf_perf::measure::book::{Book, remote_half};
use wharf_perf::measure::figures::{DiskFile, End, Half, Role, Snapshot, Start, StreamEnd, StreamInfo};
use wharf_perf::measure::verify::Checker;
use wharf_perf::protocol::client::{ClientAction, ClientControl, ClientPhase};
use wharf_perf::protocol::datagram::{Header, is_hello, is_reply};
use wharf_perf::protocol::json;
use wharf_perf::protocol::parameters::{self, Parameters, Protocol};
use wharf_perf::protocol::results::Results;
use wharf_perf::protocol::server::{ServerAction, ServerControl, ServerPhase};
use wharf_perf::protocol::{Cookie, Decoder, Failure, frame};
use wharf_perf::report::human::Human;
use wharf_perf::report::json as report_json;
use wharf_perf::report::sides::Sides;
use wharf_perf::report::units::Format;

/// Takes the first bytes of an input as parameters; what is missing is 0.
fn parameters_of<const N: usize>(data: &[u8]) -> ([u8; N], &[u8]) {
    let mut taken = [0; N];
    let count = data.len().min(N);
    taken[..count].copy_from_slice(&data[..count]);
    (taken, &data[count..])
}

/// Pieces of a stream, as `cuts` decides; 0: all at once.
fn pieces(stream: &[u8], cuts: u8) -> Vec<&[u8]> {
    let (mut rest, mut pieces, mut state) = (stream, Vec::new(), u32::from(cuts));
    while !rest.is_empty() {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        let longest = if cuts == 0 { rest.len() } else { 1 + (state >> 16) as usize % usize::from(cuts) };
        let (piece, others) = rest.split_at(longest.min(rest.len()));
        pieces.push(piece);
        rest = others;
    }
    pieces
}

fn has_controls(text: &str) -> bool {
    text.chars().any(|letter| letter.is_control() && letter != '\t' && letter != '\n')
}

/// The control connection: what is waited for (two bits each), cuts, then the stream. However it is cut, the same is
/// found.
pub fn control(data: &[u8]) {
    const FRAME_BYTES_MAX: usize = 300;
    let ([kinds, cuts], stream) = parameters_of(data);
    let found = |cuts: u8| {
        let (mut decoder, mut items) = (Decoder::default(), Vec::new());
        let mut pieces = pieces(stream, cuts).into_iter();
        loop {
            let item = match kinds >> (2 * (items.len() % 4)) & 3 {
                0 | 1 => decoder.state().map(|state| format!("state {state}")),
                2 => decoder.error_pair(false).map(|pair| format!("pair {pair:?}")),
                _ => match decoder.frame(FRAME_BYTES_MAX) {
                    Ok(map) => map.map(|map| Value::from(map).to_string()),
                    // Nothing is taken after it.
                    Err(bad) => {
                        items.push(format!("{bad:?}"));
                        return (items, None);
                    }
                },
            };
            match item {
                Some(item) => items.push(item),
                None => match pieces.next() {
                    Some(piece) => decoder.push(piece),
                    None => return (items, Some(decoder.len())),
                },
            }
        }
    };
    assert_eq!(found(cuts), found(0), "cut by {cuts}");
    if let Some(cookie) = Cookie::parse(stream) {
        assert!(cookie.text().len() == 36 && !has_controls(cookie.text()));
    }
}

/// What a control connection's end has done with its bytes: whatever it was asked for is done at once, and so the same
/// comes of them however they are cut.
fn driven<A>(stream: &[u8], cuts: u8, mut push: impl FnMut(&[u8]), mut next: impl FnMut(bool) -> Option<A>) {
    for piece in pieces(stream, cuts) {
        push(piece);
        while next(false).is_some() {}
    }
    while next(true).is_some() {}
}

fn look_at_failure(failure: &Failure) {
    assert!(!has_controls(&failure.text) && !failure.text.is_empty(), "{failure:?}");
}

/// The client's end of the control connection as a whole: cuts, whether two phases are wanted, then what the server
/// says.
pub fn client(data: &[u8]) {
    let ([cuts, two_phase], stream) = parameters_of(data);
    let found = |cuts: u8| {
        let control = RefCell::new(ClientControl::new(two_phase & 1 == 1));
        control.borrow_mut().connected();
        let seen = RefCell::new(Vec::new());
        driven(
            stream,
            cuts,
            |piece| control.borrow_mut().push(piece).unwrap(),
            |ended| {
                let control = &mut *control.borrow_mut();
                let before = (control.phase(), control.round());
                let action = control.next(ended)?;
                match &action {
                    ClientAction::SendParameters => assert_eq!(before, (ClientPhase::Greeting, 1)),
                    ClientAction::MakeStreams => {
                        assert_eq!(before.0, ClientPhase::Asked);
                        control.streams_made();
                    }
                    ClientAction::Begin => assert_eq!(before.0, ClientPhase::Ready),
                    ClientAction::Run => {
                        assert_eq!(before.0, ClientPhase::Started);
                        control.stopped();
                        control.counted();
                        control.told();
                    }
                    ClientAction::SendResults => {
                        assert_eq!(before.0, ClientPhase::Told);
                        control.results_sent(vec![1], false);
                    }
                    ClientAction::TakeResults(results) => {
                        assert_eq!(before.0, ClientPhase::Results);
                        assert!(results.streams.iter().all(|stream| stream.id == 1), "{results:?}");
                    }
                    ClientAction::Finish => {
                        assert_eq!(before.0, ClientPhase::Display);
                        match control.is_first_of_two() {
                            true => control.second_phase(),
                            false => control.drain(),
                        }
                    }
                    ClientAction::AwaitError => {}
                    ClientAction::Fail(failure) => {
                        look_at_failure(failure);
                        control.close();
                        assert_eq!(control.next(ended), None, "nothing is heard after the end");
                    }
                }
                assert!(control.round() <= 1 + u32::from(two_phase & 1));
                seen.borrow_mut().push(format!("{action:?}"));
                Some(())
            },
        );
        (seen.into_inner(), control.into_inner().phase())
    };
    assert_eq!(found(cuts), found(0), "cut by {cuts}");
}

/// The server's end of the control connection as a whole: cuts, a byte without a meaning, then what the client says.
pub fn server(data: &[u8]) {
    const PARAMETERS_BYTES_MAX: usize = 1000;
    let ([cuts, _], stream) = parameters_of(data);
    let found = |cuts: u8| {
        let control = RefCell::new(ServerControl::new(PARAMETERS_BYTES_MAX));
        let seen = RefCell::new(Vec::new());
        driven(
            stream,
            cuts,
            |piece| control.borrow_mut().push(piece).unwrap(),
            |ended| {
                let control = &mut *control.borrow_mut();
                let before = (control.phase(), control.round());
                let action = control.next(ended)?;
                match &action {
                    ServerAction::Agree(parameters) => {
                        assert_eq!(before, (ServerPhase::Greeting, 1));
                        control.agreed(parameters.two_phase);
                        control.running();
                    }
                    ServerAction::End => {
                        assert_eq!(before.0, ServerPhase::Running);
                        control.counted(vec![1]);
                    }
                    ServerAction::TakeResults(results) => {
                        assert_eq!(before.0, ServerPhase::Results);
                        assert!(results.streams.iter().all(|stream| stream.id == 1), "{results:?}");
                        control.results_sent();
                    }
                    ServerAction::SecondPhase => {
                        assert_eq!(before, (ServerPhase::Display, 1));
                        control.running();
                    }
                    ServerAction::Goodbye => {
                        assert_eq!(before.0, ServerPhase::Display);
                        control.close();
                    }
                    ServerAction::GivenUp(failure) | ServerAction::Fail(failure) => {
                        look_at_failure(failure);
                        control.drain();
                        assert_eq!(control.next(ended), None, "nothing is heard after the end");
                    }
                }
                seen.borrow_mut().push(format!("{action:?}"));
                Some(())
            },
        );
        (seen.into_inner(), control.into_inner().phase())
    };
    assert_eq!(found(cuts), found(0), "cut by {cuts}");
}

/// A client's parameters: what is taken is in range, and is the same when it is written and read again.
pub fn parameters(data: &[u8]) {
    let Some(map) = json::object(data) else { return };
    let parameters = match Parameters::from_json(&map) {
        Ok(parameters) => parameters,
        Err(failure) => {
            assert!(failure.code > 0 && !has_controls(&failure.text), "{failure:?}");
            return;
        }
    };
    let p = &parameters;
    let udp = p.protocol == Protocol::Udp;
    let least = if udp { parameters::DATAGRAM_BYTES_MIN } else { 1 };
    let most = if udp { parameters::DATAGRAM_BYTES_MAX } else { parameters::BLOCK_BYTES_MAX };
    assert!((least..=most).contains(&p.len), "{p:?}");
    assert!((1..=parameters::STREAMS_MAX).contains(&p.parallel) && p.streams() <= 2 * parameters::STREAMS_MAX, "{p:?}");
    assert!(p.time <= parameters::SECONDS_MAX && p.omit <= parameters::OMIT_SECONDS_MAX, "{p:?}");
    assert!(p.burst <= parameters::BURST_MAX && p.tos <= 255 && p.mss <= parameters::MSS_MAX, "{p:?}");
    assert!(
        p.window <= parameters::WINDOW_BYTES_MAX && p.send_interval_us <= parameters::SEND_INTERVAL_US_MAX,
        "{p:?}"
    );
    let _ = p.blocks_wanted();
    let mut wanted = p.clone();
    // Of datagrams only.
    wanted.gsro &= udp;
    let written = p.to_json();
    assert!(!written.as_object().unwrap().values().any(|value| *value == Value::Bool(false)), "{written}");
    let framed = frame(&written);
    let mut decoder = Decoder::default();
    decoder.push(&framed);
    let read = decoder.frame(framed.len()).unwrap().unwrap();
    assert_eq!(Parameters::from_json(&read), Ok(wanted));
}

/// A peer's results: what is taken is the same when it is written and read again, and can be reported in all forms.
pub fn results(data: &[u8]) {
    let ids = [1, 3, 4];
    let Some(map) = json::object(data) else { return };
    let results = match Results::from_json(&map, &ids) {
        Ok(results) => results,
        Err(failure) => {
            assert!(matches!(failure.code, 117 | 208) && !has_controls(&failure.text), "{failure:?}");
            return;
        }
    };
    let mut wanted = results.clone();
    wanted.streams.iter_mut().for_each(|stream| stream.bytes = stream.bytes.or(Some(0)));
    assert_eq!(Results::from_json(results.to_json().as_object().unwrap(), &ids), Ok(wanted));
    for (protocol, bidirectional) in [(Protocol::Tcp, false), (Protocol::Udp, true)] {
        let parameters = Parameters { protocol, bidirectional, verify: true, len: 1000, ..Parameters::default() };
        let (start, end) = report_of(parameters, &results, &ids);
        look_at(&start, &end);
    }
}

fn report_of(parameters: Parameters, results: &Results, ids: &[i64]) -> (Start, End) {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let sends = |index: usize| parameters.client_sends(index);
    let streams: Vec<StreamInfo> = ids
        .iter()
        .enumerate()
        .map(|(index, id)| StreamInfo { id: *id, sends: sends(index), local: address, peer: address })
        .collect();
    let ends = streams
        .iter()
        .map(|info| {
            let told = results.stream(info.id);
            let theirs = told.map_or_else(Half::default, |result| remote_half(result, 1.0));
            let ours = Half { known: true, seconds: 1.0, bytes: 7, packets: 7, ..Half::default() };
            let (sender, receiver) = if info.sends { (ours, theirs) } else { (theirs, ours) };
            StreamEnd {
                id: info.id,
                sends: info.sends,
                sender,
                receiver,
                round_trips: None,
                verification: told.and_then(|told| told.verification),
                broke: None,
                file: Some(DiskFile { name: "file".into(), bytes: 0 }),
            }
        })
        .collect();
    let start = Start {
        role: Role::Client,
        parameters,
        cookie: Cookie::parse(b"abcdefghijklmnopqrstuvwxyz234567abcd\0").unwrap(),
        streams,
        host: "host".into(),
        port: 1,
        mss: 1,
        buffers: (0, 0),
        time: SystemTime::UNIX_EPOCH,
        interval: Duration::from_secs(1),
        engine: "epoll".into(),
    };
    let end = End {
        streams: ends,
        cpu: [1.0; 3],
        remote_cpu: Some(results.cpu),
        congestion: (results.congestion.clone(), None),
        verified: Some(results.verified),
        latency: None,
        server_output: results.server_output.clone(),
    };
    (start, end)
}

/// A report can be written in all forms, holds no control character, and as JSON is JSON.
fn look_at(start: &Start, end: &End) {
    let human = Human::new(Format::default(), true, true);
    for line in human.end(start, end) {
        assert!(!has_controls(&line), "{line:?}");
    }
    let value = report_json::end(end, start);
    let text = json::pretty(&value);
    assert!(!has_controls(&text) && serde_json::from_str::<Value>(&text).is_ok(), "{text}");
    let event = report_json::event("wharf", report_json::ours(Some(end), Some(start)));
    assert!(!has_controls(&event) && serde_json::from_str::<Value>(&event).is_ok(), "{event}");
    let sides = Sides::new((start, end), Some((start, end)));
    assert!(sides.lines().iter().all(|line| !has_controls(line)));
    let _ = (end.throughput(), end.loss_percent(true), end.loss_percent(false), sides.to_json().to_string());
}

/// Datagrams of 16 bytes each, after a byte that says whether their numbers are wide: the account and the books bear
/// them all.
pub fn datagrams(data: &[u8]) {
    let ([wide], stream) = parameters_of(data);
    let wide = wide & 1 == 1;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let info = StreamInfo { id: 1, sends: false, local: address, peer: address };
    let (mut account, mut book) = (Account::default(), Book::new(Protocol::Udp, &[info]));
    let snapshot = |account: &Account| Snapshot {
        bytes: account.arrived * 16,
        packets: account.highest,
        lost: account.lost,
        out_of_order: account.out_of_order,
        jitter: account.jitter,
        tcp: None,
    };
    for (at, datagram) in stream.chunks(16).enumerate() {
        let _ = (is_hello(datagram), is_reply(datagram));
        let Some(header) = Header::read(datagram, wide) else { continue };
        let mut written = [0; 16];
        header.write(&mut written, wide);
        let bytes = if wide { 16 } else { 12 };
        assert_eq!(written[..bytes], datagram[..bytes], "what was read is written the same");
        let before = account;
        account.datagram(&header, Duration::from_millis(at as u64));
        assert_eq!(account.arrived, before.arrived + 1);
        assert!(account.highest == before.highest.max(header.sequence) && account.lost <= account.highest);
        assert!(account.jitter.is_finite() && account.jitter >= 0.0);
        if at % 5 == 4 {
            book.begin(&[snapshot(&account)]);
        }
        let row = &book.tick(at as f64, false, &[snapshot(&account)]).rows[0];
        assert!(row.rate().is_finite());
        let totals = book.totals(1.0, &[snapshot(&account)])[0];
        assert!(totals.packets >= 0);
        let result = &book.results(1.0, &[snapshot(&account)], |_| None)[0];
        assert!(result.packets >= 0 && result.errors >= 0 && result.omitted_packets <= result.packets);
        let half = remote_half(result, 1.0);
        assert!((half.packets, half.lost) == (totals.packets, totals.lost) || account.highest > i64::MAX as u64);
    }
}

/// Blocks of a verified stream: their length, cuts, then the stream. However it is cut, the same is found.
pub fn blocks(data: &[u8]) {
    let ([len, cuts], stream) = parameters_of(data);
    let len = 20 + usize::from(len) % 50;
    let pattern: std::sync::Arc<[u8]> = (0..len).map(|at| at as u8).collect();
    let found = |cuts: u8| {
        let mut checker = Checker::new(pattern.clone(), 1, len);
        pieces(stream, cuts).into_iter().for_each(|piece| checker.bytes(piece));
        checker.found
    };
    let whole = found(0);
    assert_eq!(found(cuts), whole, "cut by {cuts}");
    assert_eq!(whole.blocks, (stream.len() / len) as u64);
    assert!(whole.checksum <= whole.blocks && whole.errors() <= 3 * whole.blocks);
    let mut checker = Checker::new(pattern, 1, len);
    stream.chunks(len + 1).for_each(|datagram| checker.datagram(datagram));
}
