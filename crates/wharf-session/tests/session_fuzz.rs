//! The fuzz targets over their corpus, and over mutations of it from a fixed seed: what `cargo fuzz` does with coverage
//! as its guide, done blindly and always alike. An input that fails is printed, to be put into the corpus.

use wharf_testkit::blind::Blind;

const BLIND: Blind = Blind {
    corpus: concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus"),
    mutations: 25_000,
    telling: &[b'\n', b'\r', 0, 1, 2, 4, 8, 0x7F, 0x80, 0xFF],
};

#[test]
fn lines_are_found_however_the_stream_is_cut() {
    BLIND.fuzz("lines", 1, wharf_session_fuzz::lines);
}

#[test]
fn frames_with_a_length_are_found_however_the_stream_is_cut() {
    BLIND.fuzz("length_prefix", 2, wharf_session_fuzz::length_prefix);
}
