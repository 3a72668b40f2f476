//! See `shiftboss_fuzz::keeper`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shiftboss_fuzz::keeper::try_out(bytes));
