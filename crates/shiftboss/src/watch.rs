//! Which files a broker's workers are made of. A change of one recycles them; when, and how often, is core's to say.
//!
//! `watch/files` finds the files and sees them change.

mod files;

use std::path::{Path, PathBuf};
use std::time::Duration;

use globset::{Glob, GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};

pub(crate) use files::{Files, Subject};

/// The files that recycle a broker when they change, as patterns: `*` and `?` within a name, `**` for any folders,
/// `[ab]`, `{a,b}`. A `**` does not enter hidden folders or `node_modules` that it does not name.
///
/// ```
/// # #[cfg(feature = "watch")] {
/// use std::time::Duration;
/// let watch = shiftboss::Watch::new(["src/**/*.js", "config.json"])?.debounce(Duration::from_millis(500));
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    paths: Vec<String>,
    debounce: Duration,
    /// None = the workers' folder.
    base: Option<PathBuf>,
}

/// A pattern that no file could match.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// There is none.
    #[error("there is no pattern, so nothing would be watched")]
    None,
    /// Nothing between the quotes, or a folder's name.
    #[error("`{0}` names no file; write one like \"src/**/*.js\"")]
    NoFile(String),
    /// It cannot be read.
    #[error("`{0}` is no pattern: {1}")]
    Pattern(String, String),
}

impl Watch {
    /// Watches what these patterns match; debounce 200 ms.
    ///
    /// # Errors
    /// A pattern that no file can match; none at all.
    pub fn new<S: Into<String>>(paths: impl IntoIterator<Item = S>) -> Result<Watch, WatchError> {
        let paths: Vec<String> = paths.into_iter().map(Into::into).collect();
        if paths.is_empty() {
            return Err(WatchError::None);
        }
        paths.iter().try_for_each(|path| Pattern::new(path, Path::new("/")).map(drop))?;
        Ok(Watch { paths, debounce: DEBOUNCE, base: None })
    }

    /// How long files must have been quiet before workers are recycled; after ten times as long it is not waited for any
    /// more.
    #[must_use]
    pub fn debounce(self, debounce: Duration) -> Watch {
        Watch { debounce, ..self }
    }

    /// What relative patterns are relative to; without it, the folder that the workers run in.
    #[must_use]
    pub fn relative_to(self, base: impl Into<PathBuf>) -> Watch {
        Watch { base: Some(base.into()), ..self }
    }

    /// The patterns.
    #[must_use]
    pub fn paths(&self) -> &[String] {
        &self.paths
    }

    /// See [`Watch::debounce`].
    #[must_use]
    pub fn quiet_for(&self) -> Duration {
        self.debounce
    }

    /// The same with every path known, whatever folder somebody runs in later.
    pub(crate) fn settled(&self, cwd: Option<&Path>) -> Watch {
        let base = self.base.as_deref().or(cwd).unwrap_or(Path::new("."));
        Watch { base: std::path::absolute(base).ok().or_else(|| self.base.clone()), ..self.clone() }
    }

    fn base(&self) -> &Path {
        self.base.as_deref().unwrap_or(Path::new("."))
    }

    /// Patterns that could not be read were refused before.
    fn patterns(&self) -> Vec<Pattern> {
        self.paths.iter().filter_map(|path| Pattern::new(path, self.base()).ok()).collect()
    }
}

/// One pattern, cut where its first wildcard stands.
struct Pattern {
    text: String,
    /// The folder that is always part of it.
    root: PathBuf,
    /// Matches what lies below.
    below: GlobMatcher,
    /// How many folders deep that may be.
    depth: usize,
}

impl Pattern {
    fn new(text: &str, base: &Path) -> Result<Pattern, WatchError> {
        if text.is_empty() || text.ends_with(['/', '.']) && text.trim_end_matches(['/', '.']).is_empty() {
            return Err(WatchError::NoFile(text.to_owned()));
        }
        if text.ends_with('/') {
            return Err(WatchError::NoFile(text.to_owned()));
        }
        let wild = text.find(['*', '?', '[', '{', '\\']).unwrap_or(text.len());
        let cut = text[..wild].rfind('/').map_or(0, |at| at + 1);
        let (folder, below) = text.split_at(cut);
        let glob: Result<Glob, _> = GlobBuilder::new(below).literal_separator(true).build();
        let glob = glob.map_err(|error| WatchError::Pattern(text.to_owned(), error.kind().to_string()))?;
        let depth = if below.contains("**") { usize::MAX } else { below.matches('/').count() };
        Ok(Pattern { text: text.to_owned(), root: base.join(folder), below: glob.compile_matcher(), depth })
    }

    /// Whether folders of this name are looked into.
    fn enters(&self, name: &str) -> bool {
        let hidden = name.starts_with('.') || name == "node_modules";
        !hidden || self.below.glob().glob().split('/').any(|part| part == name)
    }
}

/// Long enough for an editor to have written its file, or a tool all of them.
const DEBOUNCE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_that_no_file_could_match_are_refused() {
        let wrong = |path: &str| Watch::new([path]).unwrap_err().to_string();
        assert_eq!(wrong("src/["), "`src/[` is no pattern: unclosed character class; missing ']'");
        assert!(wrong("").contains("names no file") && wrong("src/").contains("names no file"));
        assert_eq!(Watch::new([""; 0]), Err(WatchError::None));
        assert!(Watch::new(["src/**/*.js", "/etc/app/*.toml", "../shared/a.js", "{a,b}.js"]).is_ok());
    }

    #[test]
    fn a_pattern_matches_below_the_folder_that_is_always_part_of_it() {
        let pattern = Pattern::new("src/**/*.js", Path::new("/app")).unwrap();
        assert_eq!(pattern.root, Path::new("/app/src/"));
        assert!(pattern.below.is_match("a.js") && pattern.below.is_match("a/b.js"));
        assert!(!pattern.below.is_match("a/b.ts"));
        assert!(pattern.enters("lib") && !pattern.enters("node_modules") && !pattern.enters(".git"));
        let flat = Pattern::new("*.js", Path::new("/app")).unwrap();
        assert!(flat.below.is_match("a.js") && !flat.below.is_match("a/b.js") && flat.depth == 0);
        assert!(Pattern::new("**/node_modules/*.js", Path::new("/")).unwrap().enters("node_modules"));
    }
}
