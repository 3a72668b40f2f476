//! See `shiftboss_fuzz::channel`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shiftboss_fuzz::channel::try_out(bytes));
