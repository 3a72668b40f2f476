//! `run`: the app in the foreground, from its file or straight from the line.

mod line;
mod log;

use std::path::Path;

use shiftboss::config::{self, ConfigErrors, Loaded};
use shiftboss::os::instance::{ClaimError, default_socket};
use shiftboss::os::listener::BindError;
use shiftboss::{AppOptions, RunError, Setting};

use self::log::RunLog;
use crate::args::{Global, RunArgs};
use crate::exit::{Exit, Trouble};
use crate::find;
use crate::output::Output;

/// Runs the verb.
pub(crate) fn run(global: &Global, asked: &RunArgs, output: &Output) -> Result<Exit, Trouble> {
    let from_line = !asked.command.is_empty();
    let mut app = if from_line { line::app(asked, output)? } else { read(&file(global), output)?.options };
    if let Some(name) = &global.app {
        app.app = find::name(name)?.to_owned();
    }
    let environment = environment(global, from_line)?;
    let socket = global.socket.clone().unwrap_or_else(|| default_socket(&app.app));
    welcome(&app, &socket, output);
    let setting = Setting { socket, environment };
    shiftboss::run(&app, &setting, Box::new(RunLog::standard(output)))
        .map(|()| Exit::Done)
        .map_err(|error| refused(&error, from_line))
}

/// The configuration that is meant.
pub(crate) fn file(global: &Global) -> std::path::PathBuf {
    global.config.clone().unwrap_or_else(|| find::DEFAULT_CONFIG.into())
}

/// Reads the file; says its warnings. All its mistakes are one trouble.
pub(crate) fn read(file: &Path, output: &Output) -> Result<Loaded, Trouble> {
    if !file.exists() {
        let trouble = Trouble::new(Exit::Config, format!("there is no {}", file.display()));
        return Err(trouble.help("without a file: `shiftboss run -w 4 -p 3000 -- CMD`"));
    }
    let loaded = config::read(file).map_err(|errors| mistakes(&errors, output))?;
    for warning in &loaded.warnings {
        output.say(&warning.to_string());
    }
    let missing = loaded.check_files();
    if missing.is_empty() {
        return Ok(loaded);
    }
    for diagnostic in missing {
        output.draw(&format!("{diagnostic}\n"));
    }
    Err(Trouble::new(Exit::Config, ""))
}

fn mistakes(errors: &ConfigErrors, output: &Output) -> Trouble {
    output.draw(&format!("{errors}\n"));
    Trouble::new(Exit::Config, "")
}

/// `--env`, else `$env`, else "default". A file of this version describes no other; a command on the line takes any.
pub(crate) fn environment(global: &Global, any: bool) -> Result<String, Trouble> {
    let asked =
        global.environment.clone().or_else(|| std::env::var("env").ok().filter(|name| !name.is_empty()));
    match asked {
        Some(name) if any || name == DEFAULT => Ok(name),
        None => Ok(DEFAULT.to_owned()),
        Some(name) => {
            let from = if global.environment.is_some() { "--env" } else { "$env" };
            let error =
                format!("{from} asks for the environment `{name}`, which the configuration does not have");
            Err(Trouble::new(Exit::Config, error).help("it has: default"))
        }
    }
}

fn welcome(app: &AppOptions, socket: &Path, output: &Output) {
    let brokers: Vec<&str> = app.brokers.iter().map(|(name, _)| name.as_str()).collect();
    output.say(&format!(
        "{}: keeping {} on shift; asked at {}",
        app.app,
        brokers.join(", "),
        socket.display()
    ));
    if rustix::process::geteuid().is_root() {
        output.say("running as root: the workers are root too");
    }
}

fn refused(error: &RunError, from_line: bool) -> Trouble {
    let text = error.to_string();
    match error {
        RunError::Launch(_) => Trouble::new(if from_line { Exit::Failed } else { Exit::Config }, text),
        RunError::Claim(ClaimError::AlreadyRunning { .. }) => Trouble::new(Exit::Busy, text)
            .help("`shiftboss status` shows it, `shiftboss stop --all` ends it; --app NAME starts another"),
        RunError::Claim(_) => {
            Trouble::new(Exit::Failed, text).help("--socket PATH puts the control socket elsewhere")
        }
        RunError::Listen { source: BindError::InUse { .. }, .. } => {
            Trouble::new(Exit::Failed, text).help("stop it, or choose another address")
        }
        RunError::Listen { source: BindError::NotPermitted { .. }, .. } => {
            Trouble::new(Exit::NotAllowed, text).help(
                "choose a higher port, or give the capability: `setcap cap_net_bind_service=+ep shiftboss`",
            )
        }
        RunError::Listen { .. } | RunError::Os { .. } => Trouble::new(Exit::Failed, text),
    }
}

const DEFAULT: &str = "default";
