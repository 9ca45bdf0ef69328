//! Bytes from the fuzzer for the target `datagrams` of `targets.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wharf_perf_fuzz::datagrams(data));
