//! Who may do what, checked over the text of the sources: only the driver calls core, only named files hold code that
//! the compiler cannot check, and the keeper stays small. Looks at lines, not at syntax: comments count only when they
//! share a line with code.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

pub(super) fn check(root: &Path) -> Result<()> {
    let (mut broken, mut keeper) = (Vec::new(), 0);
    for file in sources(root)? {
        let path = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {path}"))?;
        broken.extend(broken_rules(&path, &text));
        keeper += if path.starts_with(KEEPER) { lines_of_code(&text) } else { 0 };
    }
    if keeper > KEEPER_MOST {
        broken.push(format!("{KEEPER}: {keeper} lines of code; {KEEPER_MOST} can be read in one sitting"));
    }
    if !broken.is_empty() {
        bail!("{}", broken.join("\n"));
    }
    Ok(())
}

/// A line for each place in a file that breaks a rule. `path` is seen from the root of the work tree.
fn broken_rules(path: &str, text: &str) -> Vec<String> {
    let within = |allowed: &[&str]| allowed.iter().any(|start| path.starts_with(start));
    let may_call_core = !path.starts_with(LIBRARY) || within(&CALLERS);
    let may_be_unchecked = within(&UNCHECKED);
    let mut broken = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
        if !may_call_core && CALLS.iter().any(|call| line.contains(call)) {
            broken.push(format!("{path}:{}: only {} call core", at + 1, CALLERS.join(" and ")));
        }
        if !may_be_unchecked && has_word(line, KEYWORD) {
            broken.push(format!("{path}:{}: {KEYWORD} code belongs into {}", at + 1, UNCHECKED.join(", ")));
        }
    }
    broken
}

/// Without comments, blank lines and the tests at the end of a file.
fn lines_of_code(text: &str) -> usize {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

/// Whether the word stands there on its own, not as a part of a longer name.
fn has_word(line: &str, word: &str) -> bool {
    let in_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (line[..at].chars().next_back(), line[at + word.len()..].chars().next());
        !before.is_some_and(in_name) && !after.is_some_and(in_name)
    })
}

/// All Rust files of our packages.
fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.join("crates"), root.join("xtask")];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

const KEEPER: &str = "crates/keeper/src/";
/// Whoever holds everything has to be understood as a whole.
const KEEPER_MOST: usize = 600;
const LIBRARY: &str = "crates/shiftboss/src/";
/// The loop that calls core with what is below it, and the file that makes what it calls.
const CALLERS: [&str; 2] = ["crates/shiftboss/src/driver", "crates/shiftboss/src/run.rs"];
const CALLS: [&str; 2] = [".handle(", "App::new("];
const UNCHECKED: [&str; 9] = [
    "crates/channel/src/offset.rs",
    "crates/core/tests/simulation/heap.rs",
    "crates/keeper/src/children.rs",
    "crates/keeper/tests/program.rs",
    "crates/link/src/inherit.rs",
    "crates/link/src/signals.rs",
    "crates/shiftboss/src/os/",
    "crates/test-worker/",
    "xtask/src/bare.rs",
];
/// Put together so that this file is not found by its own rule.
const KEYWORD: &str = concat!("un", "safe");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_driver_calls_core() {
        let call = "let effects = self.core.handle(now, input);\n";
        assert_eq!(broken_rules("crates/shiftboss/src/driver.rs", call), Vec::<String>::new());
        assert_eq!(broken_rules("crates/core/src/lib.rs", call), Vec::<String>::new());
        let broken = broken_rules("crates/shiftboss/src/feed.rs", &format!("\n{call}"));
        assert_eq!(broken.len(), 1);
        assert!(broken[0].starts_with("crates/shiftboss/src/feed.rs:2: "), "{broken:?}");
    }

    #[test]
    fn unchecked_code_stays_in_its_files() {
        let block = format!("    {KEYWORD} {{ libc::fork() }};\n");
        assert_eq!(broken_rules("crates/shiftboss/src/os/pidfd.rs", &block), Vec::<String>::new());
        assert_eq!(broken_rules("crates/cli/src/main.rs", &block).len(), 1);
    }

    #[test]
    fn tests_comments_and_blank_lines_do_not_make_code_longer() {
        let code = "//! Text.\nuse std::io;\n\n/// More.\nfn f() {\n    // Why.\n}\n";
        assert_eq!(lines_of_code(code), 3);
        assert_eq!(lines_of_code(&format!("{code}\n#[cfg(test)]\nmod tests {{\n}}\n")), 3);
    }

    #[test]
    fn a_comment_and_a_longer_name_are_no_code() {
        let text = format!("// {KEYWORD}\n#![forbid({KEYWORD}_code)]\n    /// core.handle(now, input)\n");
        assert_eq!(broken_rules("crates/shiftboss/src/lib.rs", &text), Vec::<String>::new());
    }
}
