//! See `shiftboss_fuzz::configuration`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shiftboss_fuzz::configuration::try_out(bytes));
