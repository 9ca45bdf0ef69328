//! Bytes from the fuzzer for the target `lines` of `targets.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wharf_session_fuzz::lines(data));
