//! Bytes from the fuzzer for the target `parameters` of `targets.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wharf_perf_fuzz::parameters(data));
