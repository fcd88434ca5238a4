#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| overplane_fuzz::fib::run(bytes));
