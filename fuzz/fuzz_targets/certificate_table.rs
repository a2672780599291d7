//! See `launch_evidence::fuzzing::certificate_table`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| launch_evidence::fuzzing::certificate_table(bytes));
