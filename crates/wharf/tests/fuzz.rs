//! The fuzz targets over their corpus, and over mutations of it from a fixed seed: what `cargo fuzz` does with coverage
//! as its guide, done blindly and always alike. An input that fails is printed, to be put into the corpus.

use fastrand::Rng;
use wharf_testkit::blind::Blind;

const BLIND: Blind = Blind {
    corpus: concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus"),
    mutations: 25_000,
    telling: &[b'\n', b'\r', 0, 1, 2, 4, 8, 0x7F, 0x80, 0xFF],
};

#[test]
fn every_number_is_translated_and_none_into_a_success() {
    BLIND.fuzz("errors", 3, wharf_fuzz::errors);
    // Every number that a system has, and one bit more than a status has room for.
    (-5_000..=70_000).for_each(wharf_fuzz::errno);
    let mut rng = Rng::with_seed(4);
    for _ in 0..20_000 {
        wharf_fuzz::errno(rng.i32(..));
        wharf_fuzz::status(wharf::error::NtStatus(rng.u32(..)));
    }
}
