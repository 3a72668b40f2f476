//! What reads the words of others, fed with bytes by chance. Each module has one function, `try_out`, which panics when
//! a promise is broken; the programs in `targets/` give it to libFuzzer. `cargo xtask fuzz` builds and runs them.

pub mod bytes;
pub mod channel;
pub mod configuration;
pub mod control;
pub mod core;
pub mod keeper;
pub mod records;

#[cfg(test)]
mod tests {
    use super::*;

    /// What `fuzz/corpus` keeps of a target.
    fn kept(target: &str) -> Vec<Vec<u8>> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        let files: Vec<Vec<u8>> = std::fs::read_dir(folder)
            .expect("a corpus is there")
            .map(|file| std::fs::read(file.expect("it is read").path()).expect("it is read"))
            .collect();
        assert!(!files.is_empty());
        files
    }

    #[test]
    fn what_was_kept_breaks_no_promise() {
        let targets: [(&str, fn(&[u8])); 6] = [
            ("channel", channel::try_out),
            ("records", records::try_out),
            ("control", control::try_out),
            ("configuration", configuration::try_out),
            ("core", core::try_out),
            ("keeper", keeper::try_out),
        ];
        for (target, try_out) in targets {
            kept(target).iter().for_each(|bytes| try_out(bytes));
        }
    }
}
