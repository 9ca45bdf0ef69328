//! Bytes from the fuzzer for the target `control` of `targets.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wharf_perf_fuzz::control(data));
