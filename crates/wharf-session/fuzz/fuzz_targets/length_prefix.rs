//! Bytes from the fuzzer for the target `length_prefix` of `targets.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wharf_session_fuzz::length_prefix(data));
