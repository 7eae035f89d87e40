#![no_main]

#[path = "../../tests/it/oracle/compare.rs"]
mod compare;

libfuzzer_sys::fuzz_target!(|data: &[u8]| compare::compare(data));
