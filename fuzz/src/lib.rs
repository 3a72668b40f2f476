//! What reads the words of others, fed with bytes by chance. Each module has one function, `try_out`, which panics when
//! a promise is broken; the programs in `targets/` give it to libFuzzer. `cargo xtask fuzz` builds and runs them.

pub mod bytes;
pub mod channel;
pub mod configuration;
pub mod control;
pub mod core;
pub mod keeper;
pub mod records;
