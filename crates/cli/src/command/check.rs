//! `check`: reads the configuration, looks whether everything could be started, and starts nothing.

use std::path::Path;

use serde_json::{Value, json};
use shiftboss::config::{Diagnostic, Loaded, Severity};

use super::configuration::{self, Examined};
use crate::args::{CheckArgs, Global};
use crate::exit::{Exit, Trouble};
use crate::output::Output;
use crate::text;

/// Runs the verb.
pub(crate) fn run(global: &Global, asked: &CheckArgs, output: &Output) -> Result<Exit, Trouble> {
    let file = configuration::file(global);
    if output.json {
        if asked.explain {
            return Err(Trouble::usage("check --explain is text only: lines of TOML, with comments")
                .help("`shiftboss check --json` tells what is wrong, `shiftboss status --json` what runs"));
        }
        return print_json(&file, global, output);
    }
    let loaded = configuration::read(&file, global, output)?;
    for warning in loaded.check_other_files() {
        output.say(&warning.to_string());
    }
    if asked.explain {
        output.line(loaded.explain().trim_end())?;
    } else {
        let (brokers, workers) = size(&loaded);
        output.line(&format!(
            "{} is valid: {}, {}",
            file.display(),
            text::count(brokers, "broker"),
            text::count(workers, "worker")
        ))?;
    }
    Ok(Exit::Done)
}

/// Brokers and workers.
fn size(loaded: &Loaded) -> (u64, u64) {
    let workers = loaded.options.brokers.iter().map(|(_, broker)| u64::from(broker.workers)).sum();
    (loaded.options.brokers.len() as u64, workers)
}

/// An object, whatever is wrong with the file; the exit code is the same as without.
fn print_json(file: &Path, global: &Global, output: &Output) -> Result<Exit, Trouble> {
    let Examined { loaded, mut found, left_out } = match configuration::examine(file, global) {
        Ok(examined) => examined,
        Err(trouble) => {
            let problem = json!({
                "warning": false, "line": null, "column": null,
                "message": trouble.error, "label": null, "help": trouble.help,
            });
            let told = json!({
                "file": file.display().to_string(), "valid": false, "problems": [problem], "left_out": 0,
            });
            output.line(&told.to_string())?;
            return Ok(trouble.exit);
        }
    };
    found.extend(loaded.iter().flat_map(Loaded::check_other_files));
    let problems: Vec<Value> = found.iter().map(problem).collect();
    let mut told = json!({
        "file": file.display().to_string(), "valid": loaded.is_some(), "problems": problems, "left_out": left_out,
    });
    if let Some(loaded) = &loaded {
        let (brokers, workers) = size(loaded);
        told["brokers"] = brokers.into();
        told["workers"] = workers.into();
    }
    output.line(&told.to_string())?;
    Ok(if loaded.is_some() { Exit::Done } else { Exit::Config })
}

fn problem(found: &Diagnostic) -> Value {
    let Diagnostic { severity, file: _, place, message, label, help } = found;
    json!({
        "warning": *severity == Severity::Warning,
        "line": place.as_ref().map(|place| place.line),
        "column": place.as_ref().map(|place| place.column),
        "message": message,
        "label": label,
        "help": help,
    })
}
