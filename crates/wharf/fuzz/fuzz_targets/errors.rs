//! Bytes from the fuzzer for the target `errors` of `targets.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wharf_fuzz::errors(data));
