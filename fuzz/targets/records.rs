//! See `shiftboss_fuzz::records`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shiftboss_fuzz::records::try_out(bytes));
