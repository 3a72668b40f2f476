//! See `shiftboss_fuzz::control`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shiftboss_fuzz::control::try_out(bytes));
