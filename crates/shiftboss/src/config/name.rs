//! Which app a file is of, told as far as it can be: also while the file is being mended, so that its app can be asked.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::{file, without_mark};

/// The app's name in this file with this text: that of its directory if it names none. Whether an app may be called
/// so is not checked.
#[must_use]
pub fn app_of(path: &Path, text: &str) -> Option<String> {
    let text = without_mark(text);
    let named = match DeTable::parse(text) {
        Ok(root) => root.get_ref().get("app").and_then(|app| match app.get_ref() {
            DeValue::String(app) => Some(app.to_string()),
            _ => None,
        }),
        Err(_) => first_line_of(text).map(str::to_owned),
    };
    named.or_else(|| file::directory_name(path))
}

/// The value of the top-level key `app` in a text that is no TOML.
fn first_line_of(text: &str) -> Option<&str> {
    let top = text.lines().map(str::trim).take_while(|line| !line.starts_with('['));
    top.filter_map(|line| {
        let key = ["app", "\"app\"", "'app'"].into_iter().find_map(|key| line.strip_prefix(key))?;
        let value = key.trim_start().strip_prefix('=')?.trim_start();
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        value[1..].split(quote).next()
    })
    .next()
}
