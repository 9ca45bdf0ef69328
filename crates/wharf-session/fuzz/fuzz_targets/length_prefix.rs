//! Bytes from the fuzzer for the target `length_prefix` of `targets.rs`.
#![no_main]

#[path = "../targets.rs"]
#[allow(dead_code)]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::length_prefix(data));
