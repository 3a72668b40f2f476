//! The configuration that is meant, and everything there is to say of it.

use std::path::{Path, PathBuf};

use shiftboss::config::{self, ConfigErrors, Diagnostic, Loaded, Severity, UnknownEnvironment};

use crate::args::Global;
use crate::exit::{Exit, Trouble};
use crate::find;
use crate::output::Output;

/// A configuration that was looked at, in the environment that is asked for.
pub(crate) struct Examined {
    /// None if it cannot be run.
    pub(crate) loaded: Option<Loaded>,
    /// In order of the file; then programs and folders that are not there.
    pub(crate) found: Vec<Diagnostic>,
    /// So many mistakes more are not among them.
    pub(crate) left_out: usize,
}

/// The configuration that is meant.
pub(crate) fn file(global: &Global) -> PathBuf {
    global.config.clone().unwrap_or_else(|| find::DEFAULT_CONFIG.into())
}

/// `--env`, else `$env`, else "default".
pub(crate) fn environment(global: &Global) -> String {
    let from_variable = || std::env::var("env").ok().filter(|name| !name.is_empty());
    global.environment.clone().or_else(from_variable).unwrap_or_else(|| DEFAULT.to_owned())
}

/// Reads the file, says its warnings and all that keeps it from being run.
pub(crate) fn read(file: &Path, global: &Global, output: &Output) -> Result<Loaded, Trouble> {
    output.tell(|| format!("reads {}, environment {}", file.display(), environment(global)));
    let examined = examine(file, global)?;
    examined.show(output);
    examined.loaded.ok_or_else(|| Trouble::new(Exit::Config, ""))
}

/// Reads the file and looks for what it names.
///
/// # Errors
/// There is no file, or it has no such environment.
pub(crate) fn examine(file: &Path, global: &Global) -> Result<Examined, Trouble> {
    // Whether it is there may be hidden from us: then reading it says why.
    if let Ok(false) = file.try_exists() {
        let trouble = Trouble::new(Exit::Config, format!("there is no {}", file.display()));
        return Err(trouble.help("without a file: `shiftboss run -w 4 -p 3000 -- CMD`"));
    }
    let environment = environment(global);
    let loaded = match config::read(file) {
        Ok(loaded) => loaded,
        Err(errors) => return Ok(mistaken(&errors, &environment)),
    };
    let loaded = loaded.choose(&environment).map_err(|unknown| {
        let UnknownEnvironment { name, has } = unknown;
        let from = if global.environment.is_some() { "--env" } else { "$env" };
        let error =
            format!("{from} asks for the environment `{name}`, which the configuration does not have");
        Trouble::new(Exit::Config, error).help(format!("it has: {}", has.join(", ")))
    })?;
    let missing = loaded.check_files();
    let found = loaded.warnings.iter().chain(&missing).cloned().collect();
    Ok(Examined { loaded: missing.is_empty().then_some(loaded), found, left_out: 0 })
}

fn mistaken(errors: &ConfigErrors, environment: &str) -> Examined {
    let mut found: Vec<Diagnostic> = errors.iter().cloned().collect();
    let left_out = errors.count() - found.len();
    found.extend(errors.check_files(environment));
    Examined { loaded: None, found, left_out }
}

impl Examined {
    /// Says it all.
    pub(crate) fn show(&self, output: &Output) {
        let (errors, warnings): (Vec<_>, Vec<_>) =
            self.found.iter().partition(|found| found.severity == Severity::Error);
        for warning in warnings {
            output.say(&warning.to_string());
        }
        let mut errors: Vec<String> = errors.into_iter().map(Diagnostic::to_string).collect();
        if self.left_out > 0 {
            errors.push(format!("… and {} more errors", self.left_out));
        }
        if !errors.is_empty() {
            output.draw(&format!("{}\n", errors.join("\n\n")));
        }
    }
}

const DEFAULT: &str = "default";
