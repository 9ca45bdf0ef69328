//! Fuzzing without a guide, for `cargo test`: a target over its corpus, and over mutations of it from a fixed seed,
//! which are the same everywhere. An input that fails is printed, to be put into the corpus. The corpus is the caller's
//! own.

use fastrand::Rng;
use std::path::Path;

/// Longer inputs find nothing that shorter ones do not, and cost time.
const BYTES_MAX: usize = 2048;

/// How a package's targets are tried.
#[derive(Clone, Copy, Debug)]
pub struct Blind {
    /// The folder with a folder of inputs for each target.
    pub corpus: &'static str,
    /// Mutations of each target's corpus.
    pub mutations: usize,
    /// Bytes on which its parsers decide.
    pub telling: &'static [u8],
}

/// Prints the input if the target panics.
struct Input<'a>(&'a str, &'a [u8]);

impl Drop for Input<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} fails with {:?}", self.0, self.1.escape_ascii().to_string());
        }
    }
}

fn inputs(corpus: &str, name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(corpus).join(name);
    let entries = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    // Directories have no order, and the mutations are to be the same everywhere.
    files.sort();
    assert!(files.len() >= 5, "{} has lost its inputs", directory.display());
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

fn mutate(rng: &mut Rng, corpus: &[Vec<u8>], telling: &[u8]) -> Vec<u8> {
    let mut data = rng.choice(corpus).unwrap().clone();
    for _ in 0..rng.usize(1..8) {
        let at = rng.usize(..=data.len());
        let to = rng.usize(at..=data.len().min(at + 40));
        match rng.u8(..9) {
            0 if at < data.len() => data[at] ^= 1 << rng.u8(..8),
            1 if at < data.len() => data[at] = rng.u8(..),
            2 if at < data.len() => data[at] = *rng.choice(telling).unwrap(),
            3 => data.insert(at, *rng.choice(telling).unwrap()),
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

impl Blind {
    /// Calls `target` with each input of the corpus of this name, and then with mutations of them.
    ///
    /// # Panics
    ///
    /// When the target does, or when the corpus has lost its inputs.
    pub fn fuzz(&self, name: &str, seed: u64, target: fn(&[u8])) {
        let corpus = inputs(self.corpus, name);
        let mut rng = Rng::with_seed(seed);
        let mutations = std::iter::repeat_with(|| mutate(&mut rng, &corpus, self.telling)).take(self.mutations);
        for data in corpus.iter().cloned().chain(mutations) {
            let _input = Input(name, &data);
            target(&data);
        }
    }
}
