//! The text of a configuration file.

use shiftboss::config;

/// Mistakes are told, each with a place that exists; what has none can be chosen and explained in every environment.
pub fn try_out(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match config::parse("shop/shiftboss.toml", text) {
        Err(errors) => {
            assert!(errors.count() > 0 && !errors.to_string().is_empty());
        }
        Ok(loaded) => {
            assert!(!loaded.explain().is_empty() || loaded.options.brokers.is_empty());
            let unknown = loaded.clone().choose("no such environment").expect_err("unknown");
            for name in &unknown.has {
                let chosen = loaded.clone().choose(name).expect("the file has it");
                drop(chosen.explain());
            }
        }
    }
}
