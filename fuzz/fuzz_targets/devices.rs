//! See `launch_evidence::fuzzing::devices`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| launch_evidence::fuzzing::devices(bytes));
