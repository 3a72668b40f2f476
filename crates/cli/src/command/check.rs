//! `check`: reads the configuration, looks whether everything could be started, and starts nothing.

use crate::args::{CheckArgs, Global};
use crate::command::run;
use crate::exit::{Exit, Trouble};
use crate::output::Output;
use crate::text;

/// Runs the verb.
pub(crate) fn run(global: &Global, asked: &CheckArgs, output: &Output) -> Result<Exit, Trouble> {
    let file = run::file(global);
    let loaded = run::read(&file, global, output)?;
    if asked.explain {
        output.line(loaded.explain().trim_end())?;
    } else {
        let workers: u64 = loaded.options.brokers.iter().map(|(_, broker)| u64::from(broker.workers)).sum();
        let brokers = loaded.options.brokers.len() as u64;
        output.line(&format!(
            "{} is valid: {}, {}",
            file.display(),
            text::count(brokers, "broker"),
            text::count(workers, "worker")
        ))?;
    }
    Ok(Exit::Done)
}
