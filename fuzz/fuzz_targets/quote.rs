//! See `launch_evidence::fuzzing::quote`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| launch_evidence::fuzzing::quote(bytes));
