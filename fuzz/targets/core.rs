//! See `shiftboss_fuzz::core`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shiftboss_fuzz::core::try_out(bytes));
