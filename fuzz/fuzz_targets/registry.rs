#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| quern_builder::fuzz::run("registry", bytes));
