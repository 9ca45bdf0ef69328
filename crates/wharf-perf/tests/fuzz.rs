//! The fuzz targets over their corpus, and over mutations of it from a fixed seed: what `cargo fuzz` does with coverage
//! as its guide, done blindly and always alike. An input that fails is printed, to be put into the corpus.

use wharf_testkit::blind::Blind;

const BLIND: Blind = Blind {
    corpus: concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus"),
    mutations: 15_000,
    telling: b"{}[]\",:-9e1\x00\x04\x7F\x80\xFF",
};

#[test]
fn states_frames_and_errors_are_found_however_the_stream_is_cut() {
    BLIND.fuzz("control", 1, wharf_perf_fuzz::control);
}

#[test]
fn parameters_are_taken_whole_and_in_range_or_refused() {
    BLIND.fuzz("parameters", 2, wharf_perf_fuzz::parameters);
}

#[test]
fn results_are_refused_or_can_be_reported() {
    BLIND.fuzz("results", 3, wharf_perf_fuzz::results);
}

#[test]
fn datagrams_cannot_upset_the_books() {
    BLIND.fuzz("datagrams", 4, wharf_perf_fuzz::datagrams);
}

#[test]
fn blocks_are_judged_alike_however_the_stream_is_cut() {
    BLIND.fuzz("blocks", 5, wharf_perf_fuzz::blocks);
}

#[test]
fn a_server_can_say_anything_and_the_client_ends_in_order() {
    BLIND.fuzz("client", 6, wharf_perf_fuzz::client);
}

#[test]
fn a_client_can_say_anything_and_the_server_ends_in_order() {
    BLIND.fuzz("server", 7, wharf_perf_fuzz::server);
}
