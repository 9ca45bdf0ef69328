//! What is fuzzed: each target is a plain function of some bytes that panics when a rule is broken. `tests/fuzz.rs`
//! calls them in `cargo test`, the programs in `fuzz_targets/` under libfuzzer.
//!
//! A codec is compared with a few lines that say the same of the stream as a whole: however the stream is cut into
//! pieces, the same frames must come out of it, and the same error, at linear cost.

use wharf_session::{Codec, FrameError, Input, LengthPrefix, Lines};

/// The frames of a stream, and how it ends: bytes that are left over, or an error.
type Frames = (Vec<Vec<u8>>, Result<usize, FrameError>);

/// Takes the first bytes of an input as parameters; what is missing is 0.
fn parameters<const N: usize>(data: &[u8]) -> ([u8; N], &[u8]) {
    let mut taken = [0; N];
    let count = data.len().min(N);
    taken[..count].copy_from_slice(&data[..count]);
    (taken, &data[count..])
}

/// Feeds the stream in pieces that `cuts` decides, and takes what frames there are after each.
fn decode(mut codec: impl Codec, stream: &[u8], cuts: u8) -> Frames {
    let mut input = Input::new();
    let mut frames = Vec::new();
    let mut rest = stream;
    let mut state = u32::from(cuts);
    loop {
        loop {
            match codec.decode(&mut input) {
                Ok(Some(frame)) => frames.push(frame.to_vec()),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
        if rest.is_empty() {
            break;
        }
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        let longest = match cuts {
            0 => rest.len(),
            1 => 1,
            _ => usize::from(cuts),
        };
        let (piece, others) = rest.split_at((1 + (state >> 16) as usize % longest).min(rest.len()));
        // All at once means all.
        let (piece, others) = if cuts == 0 { (rest, &rest[..0]) } else { (piece, others) };
        input.feed(piece.to_vec());
        rest = others;
    }
    let stats = input.stats();
    assert_eq!(stats.fed, stream.len() as u64);
    // Each byte is copied once or twice, and a byte that is needed twice (the prefix of a frame that is not complete)
    // is looked at again with each piece.
    assert!(stats.copied <= 3 * stats.fed, "more than linear: {stats:?}");
    (frames, Ok(input.len()))
}

/// What is encoded is decoded as it was by a `peer` that takes as much as may be sent, and nothing is left over.
fn comes_back(codec: impl Codec, peer: impl Codec, message: &[u8], cuts: u8) -> Result<(), FrameError> {
    let before = b"before".to_vec();
    let mut frame = before.clone();
    match codec.encode(message, &mut frame) {
        Ok(()) => {
            assert_eq!(frame[..before.len()], before, "encoding appends");
            assert_eq!(codec.frame_of(message).map(|frame| frame.to_vec()), Ok(frame[before.len()..].to_vec()));
            let (frames, rest) = decode(peer, &frame[before.len()..], cuts);
            assert_eq!((frames, rest), (vec![message.to_vec()], Ok(0)));
            Ok(())
        }
        Err(error) => {
            assert_eq!(frame, before, "what cannot be framed leaves nothing behind");
            assert!(!error.to_string().is_empty());
            Err(error)
        }
    }
}

/// What may be sent where so many bytes are received, and nothing else is said.
fn sent_maximum(maximum: usize) -> usize {
    maximum.max(1024)
}

/// `Lines`: maximum, flags, cuts, then the stream.
pub fn lines(data: &[u8]) {
    let ([maximum, flags, cuts], stream) = parameters(data);
    let maximum = usize::from(maximum);
    let codec = if flags & 1 == 0 { Lines::new(maximum) } else { Lines::new(maximum).crlf() };
    let too_long = FrameError::TooLong { length: None, maximum: maximum as u64 };

    let mut expected: Frames = (Vec::new(), Ok(0));
    let mut pieces = stream.split(|&byte| byte == b'\n').peekable();
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            // No end has come. One byte more than the maximum may be a `\r`.
            expected.1 = if piece.len() > maximum + 1 { Err(too_long) } else { Ok(piece.len()) };
            break;
        }
        let line = piece.strip_suffix(b"\r").unwrap_or(piece);
        if line.len() > maximum {
            expected.1 = Err(too_long);
            break;
        }
        expected.0.push(line.to_vec());
    }
    assert_eq!(decode(codec, stream, cuts), expected, "cut by {cuts}");

    let sent = sent_maximum(maximum);
    for message in expected.0.iter().map(Vec::as_slice).chain([stream]) {
        let possible = message.len() <= sent && !message.contains(&b'\n') && !message.ends_with(b"\r");
        assert_eq!(comes_back(codec, Lines::new(sent), message, cuts).is_ok(), possible);
    }
}

/// `LengthPrefix`: what kind, maximum, cuts, then the stream.
pub fn length_prefix(data: &[u8]) {
    let ([kind, maximum, cuts], stream) = parameters(data);
    let bytes = [1, 2, 4, 8][usize::from(kind & 3)];
    let (little, counts_itself) = (kind & 4 != 0, kind & 8 != 0);
    // Sometimes more than a prefix of one byte can say, and sometimes all there can be.
    let maximum = if kind & 16 != 0 { usize::MAX } else { usize::from(maximum) * 2 };
    let with = |maximum| {
        let mut codec = LengthPrefix::new(bytes, maximum);
        if little {
            codec = codec.little_endian();
        }
        if counts_itself {
            codec = codec.counting_itself();
        }
        codec
    };
    let codec = with(maximum);
    let least = if counts_itself { bytes as u64 } else { 0 };

    let mut expected: Frames = (Vec::new(), Ok(0));
    let mut rest = stream;
    expected.1 = loop {
        let Some(prefix) = rest.get(..bytes) else { break Ok(rest.len()) };
        let mut number = [0; 8];
        let length = if little {
            number[..bytes].copy_from_slice(prefix);
            u64::from_le_bytes(number)
        } else {
            number[8 - bytes..].copy_from_slice(prefix);
            u64::from_be_bytes(number)
        };
        if length < least {
            break Err(FrameError::TooShort { length, least });
        }
        let content = length - least;
        if content > maximum as u64 {
            break Err(FrameError::TooLong { length: Some(content), maximum: maximum as u64 });
        }
        if content > (rest.len() - bytes) as u64 {
            break Ok(rest.len());
        }
        let (frame, others) = rest[bytes..].split_at(content as usize);
        expected.0.push(frame.to_vec());
        rest = others;
    };
    assert_eq!(decode(codec, stream, cuts), expected, "cut by {cuts}");

    let sent = sent_maximum(maximum);
    for message in expected.0.iter().map(Vec::as_slice).chain([stream]) {
        let most = if bytes == 8 { u64::MAX } else { (1 << (8 * bytes)) - 1 };
        let possible = message.len() <= sent && message.len() as u64 + least <= most;
        assert_eq!(comes_back(codec, with(sent), message, cuts).is_ok(), possible);
    }
}
