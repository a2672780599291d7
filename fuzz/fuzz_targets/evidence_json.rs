//! See `launch_evidence::fuzzing::evidence_json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| launch_evidence::fuzzing::evidence_json(bytes));
