//! The fuzz targets over their corpus, and over mutations of it from a fixed seed: what `cargo fuzz` does with coverage as
//! its guide, done blindly and always alike. An input that fails is printed, to be put into the corpus.

#[path = "../fuzz/targets.rs"]
mod targets;

use fastrand::Rng;
use std::path::Path;

/// Mutations of each target's corpus.
const MUTATIONS: usize = 15_000;
/// Longer inputs find nothing that shorter ones do not, and cost time.
const BYTES_MAX: usize = 2048;
/// Bytes on which parsers decide.
const TELLING: [u8; 16] = *b"{}[]\",:-9e1\x00\x04\x7F\x80\xFF";

/// Prints the input if the target panics.
struct Input<'a>(&'a str, &'a [u8]);

impl Drop for Input<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} fails with {:?}", self.0, self.1.escape_ascii().to_string());
        }
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let entries = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    // Directories have no order, and the mutations are to be the same everywhere.
    files.sort();
    assert!(files.len() >= 5, "{} has lost its inputs", directory.display());
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

fn mutate(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut data = rng.choice(corpus).unwrap().clone();
    for _ in 0..rng.usize(1..8) {
        let at = rng.usize(..=data.len());
        let to = rng.usize(at..=data.len().min(at + 40));
        match rng.u8(..9) {
            0 if at < data.len() => data[at] ^= 1 << rng.u8(..8),
            1 if at < data.len() => data[at] = rng.u8(..),
            2 if at < data.len() => data[at] = *rng.choice(&TELLING).unwrap(),
            3 => data.insert(at, *rng.choice(&TELLING).unwrap()),
            4 => drop(data.drain(at..to)),
            5 => data.splice(at..at, data[at..to].to_vec()).for_each(drop),
            6 => {
                let other = rng.choice(corpus).unwrap();
                let from = rng.usize(..=other.len());
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
            7 => data.splice(at..at, vec![rng.u8(..); rng.usize(..300)]).for_each(drop),
            _ => data.truncate(at.max(1)),
        }
    }
    data.truncate(BYTES_MAX);
    data
}

fn fuzz(name: &str, seed: u64, target: fn(&[u8])) {
    let corpus = corpus(name);
    let mut rng = Rng::with_seed(seed);
    let mutations = std::iter::repeat_with(|| mutate(&mut rng, &corpus)).take(MUTATIONS);
    for data in corpus.iter().cloned().chain(mutations) {
        let _input = Input(name, &data);
        target(&data);
    }
}

#[test]
fn states_frames_and_errors_are_found_however_the_stream_is_cut() {
    fuzz("control", 1, targets::control);
}

#[test]
fn parameters_are_taken_whole_and_in_range_or_refused() {
    fuzz("parameters", 2, targets::parameters);
}

#[test]
fn results_are_refused_or_can_be_reported() {
    fuzz("results", 3, targets::results);
}

#[test]
fn datagrams_cannot_upset_the_books() {
    fuzz("datagrams", 4, targets::datagrams);
}

#[test]
fn blocks_are_judged_alike_however_the_stream_is_cut() {
    fuzz("blocks", 5, targets::blocks);
}
