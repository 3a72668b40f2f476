//! The events an app has told in its log, a JSON line each.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

pub(super) struct Events(Vec<Value>);

impl Events {
    pub(super) fn read(log: &Path) -> Result<Events> {
        let text = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
        Ok(Events::of(&String::from_utf8_lossy(&text)))
    }

    /// Lines that are no events are left out: output of workers, notes, half a line at the end.
    fn of(text: &str) -> Events {
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Events(lines.filter(|line| line["event"].is_string()).collect())
    }

    pub(super) fn count(&self, name: &str) -> usize {
        self.0.iter().filter(|event| event["event"] == name).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_events_are_counted() {
        let text =
            "{\"event\":\"app_ready\"}\nplain\n{\"line\":\"x\"}\n{\"event\":\"app_ready\"}\n{\"event\":\"app";
        assert_eq!(Events::of(text).count("app_ready"), 2);
    }
}
