//! `run`: the app in the foreground, from its file or straight from the line.

mod line;
mod log;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use shiftboss::config::{self, ConfigErrors, Loaded, UnknownEnvironment};
use shiftboss::log::{Line, Log, Told};
use shiftboss::os::instance::{ClaimError, default_socket};
use shiftboss::os::listener::BindError;
use shiftboss::os::spawn::LookUpError;
use shiftboss::{AppOptions, LaunchError, OwnProcess, RunError, Setting, TraceError};
use shiftboss_api::Event;

use self::log::RunLog;
use crate::args::{Global, RunArgs};
use crate::exit::{Exit, Trouble};
use crate::find;
use crate::output::Output;

/// Runs the verb.
pub(crate) fn run(global: &Global, asked: &RunArgs, output: &Output) -> Result<Exit, Trouble> {
    if asked.with_parent {
        end_with_parent()?;
    }
    let from_line = !asked.command.is_empty();
    let own = if asked.no_keeper { None } else { Some(own_process()?) };
    match own {
        Some(own) if own.goes_on() => shiftboss::go_on(own, Box::new(RunLog::standard(output))),
        own => {
            let (app, setting) = configured(global, asked, output)?;
            let text = if output.quiet { String::new() } else { welcome(&app, &setting.socket) };
            let log = Box::new(Welcome { text, log: RunLog::standard(output) });
            match own {
                Some(own) => shiftboss::begin(own, &app, &setting, log),
                None => shiftboss::run(&app, &setting, log),
            }
        }
    }
    .map(|()| Exit::Done)
    .map_err(|error| refused(&error, from_line))
}

/// In the keeper it does not return.
fn own_process() -> Result<OwnProcess, Trouble> {
    shiftboss::own_process_anew().map_err(|error| {
        let trouble = Trouble::new(Exit::Failed, format!("cannot run under a keeper: {error}"));
        trouble.help("a keeper needs /proc; `--no-keeper` does without one")
    })
}

/// What is to be run, from the file or from the line.
fn configured(global: &Global, asked: &RunArgs, output: &Output) -> Result<(AppOptions, Setting), Trouble> {
    let from_line = !asked.command.is_empty();
    if let (true, Some(file)) = (from_line, &global.config) {
        let error = format!("both a file, {}, and a command are given", file.display());
        return Err(Trouble::usage(error).help("the file names its commands; leave one of the two out"));
    }
    let mut app =
        if from_line { line::app(asked, output)? } else { read(&file(global), global, output)?.options };
    if from_line {
        can_be_launched(&app, output, Exit::Failed, |_| true)?;
    }
    if let Some(name) = &global.app {
        app.app = find::name(name)?.to_owned();
    }
    let environment = environment(global);
    let socket = global.socket.clone().unwrap_or_else(|| default_socket(&app.app));
    Ok((app, Setting { socket, environment, trace: trace() }))
}

/// The kernel sends us TERM when the thread that started us ends (`PR_SET_PDEATHSIG`, prctl(2)).
fn end_with_parent() -> Result<(), Trouble> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .map_err(|error| Trouble::new(Exit::Failed, format!("cannot end with the parent: {error}")))
}

/// The configuration that is meant.
pub(crate) fn file(global: &Global) -> PathBuf {
    global.config.clone().unwrap_or_else(|| find::DEFAULT_CONFIG.into())
}

/// Reads the file in the environment that is asked for; says its warnings. All its mistakes are shown, and everything
/// that could not be launched: where it says so when it is a directory, by the broker's name when it is a program.
pub(crate) fn read(file: &Path, global: &Global, output: &Output) -> Result<Loaded, Trouble> {
    // Whether it is there may be hidden from us: then reading it says why.
    if let Ok(false) = file.try_exists() {
        let trouble = Trouble::new(Exit::Config, format!("there is no {}", file.display()));
        return Err(trouble.help("without a file: `shiftboss run -w 4 -p 3000 -- CMD`"));
    }
    let loaded = config::read(file).map_err(|errors| mistakes(&errors, output))?;
    let loaded = loaded.choose(&environment(global)).map_err(|unknown| {
        let UnknownEnvironment { name, has } = unknown;
        let from = if global.environment.is_some() { "--env" } else { "$env" };
        let error =
            format!("{from} asks for the environment `{name}`, which the configuration does not have");
        Trouble::new(Exit::Config, error).help(format!("it has: {}", has.join(", ")))
    })?;
    for warning in &loaded.warnings {
        output.say(&warning.to_string());
    }
    let missing = loaded.check_files();
    for diagnostic in &missing {
        output.draw(&format!("{diagnostic}\n"));
    }
    can_be_launched(&loaded.options, output, Exit::Config, |error| {
        !matches!(error, LaunchError::Directory { .. }) || missing.is_empty()
    })?;
    if missing.is_empty() { Ok(loaded) } else { Err(Trouble::new(Exit::Config, "")) }
}

/// Shows all that keeps workers from being launched, but only what is `news`.
fn can_be_launched(
    app: &AppOptions,
    output: &Output,
    exit: Exit,
    news: impl Fn(&LaunchError) -> bool,
) -> Result<(), Trouble> {
    let wrong = shiftboss::check(app).err().unwrap_or_default();
    let mut news = wrong.iter().filter(|error| news(error)).map(|error| unlaunched(error, exit)).peekable();
    if news.peek().is_none() {
        return Ok(());
    }
    news.for_each(|trouble| output.trouble(&trouble));
    Err(Trouble::new(exit, ""))
}

fn unlaunched(error: &LaunchError, exit: Exit) -> Trouble {
    let trouble = Trouble::new(exit, error.to_string());
    match error {
        LaunchError::Program { source, .. } => match source {
            LookUpError::NotFound { .. } => {
                trouble.help("no shell is involved: give the program's path, or correct PATH")
            }
            LookUpError::NotExecutable(file) => trouble.help(format!("`chmod +x {}`", file.display())),
            LookUpError::Missing(_) | LookUpError::IsDirectory(_) | LookUpError::Unreachable { .. } => {
                trouble
            }
        },
        LaunchError::ServesAtOnce { .. } => trouble
            .help("kind = \"notify\", with a program that says SHIFTBOSS_STANDBY on its channel and waits"),
        LaunchError::OldNode { .. } => trouble.help("name a newer one in `command`, by its path"),
        LaunchError::Empty { .. }
        | LaunchError::Directory { .. }
        | LaunchError::NeedsSlot { .. }
        | LaunchError::Nul { .. } => trouble,
    }
}

fn mistakes(errors: &ConfigErrors, output: &Output) -> Trouble {
    output.draw(&format!("{errors}\n"));
    Trouble::new(Exit::Config, "")
}

/// `--env`, else `$env`, else "default".
fn environment(global: &Global) -> String {
    let from_variable = || std::env::var("env").ok().filter(|name| !name.is_empty());
    global.environment.clone().or_else(from_variable).unwrap_or_else(|| DEFAULT.to_owned())
}

/// `$SHIFTBOSS_TRACE`: the file in which every call of the rules is written down; an empty one is none.
fn trace() -> Option<PathBuf> {
    std::env::var_os("SHIFTBOSS_TRACE").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// A log that begins with a word of welcome on standard error: only an app that holds its name and its addresses logs.
struct Welcome {
    text: String,
    log: RunLog,
}

impl Welcome {
    fn say(&mut self) {
        let text = std::mem::take(&mut self.text);
        // Nobody is left who could be told.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

impl Log for Welcome {
    fn event(&mut self, event: &Event) {
        self.say();
        self.log.event(event);
    }

    fn line(&mut self, line: &Line<'_>) {
        self.say();
        self.log.line(line);
    }

    fn note(&mut self, text: &str) {
        self.say();
        self.log.note(text);
    }

    fn flush(&mut self) {
        self.log.flush();
    }

    fn takes_note(&mut self, told: Told) -> Option<Told> {
        self.log.takes_note(told)
    }
}

fn welcome(app: &AppOptions, socket: &Path) -> String {
    let brokers: Vec<&str> = app.brokers.iter().map(|(name, _)| name.as_str()).collect();
    let root =
        if rustix::process::geteuid().is_root() { "running as root: the workers are root too\n" } else { "" };
    format!("{}: keeping {} on shift; asked at {}\n{root}", app.app, brokers.join(", "), socket.display())
}

fn refused(error: &RunError, from_line: bool) -> Trouble {
    let text = error.to_string();
    match error {
        RunError::Launch(_) => Trouble::new(if from_line { Exit::Failed } else { Exit::Config }, text),
        RunError::Claim(ClaimError::AlreadyRunning { .. }) => Trouble::new(Exit::Busy, text)
            .help("`shiftboss status` shows it, `shiftboss stop --all` ends it; --app NAME starts another"),
        RunError::Claim(ClaimError::SocketRemoved { .. }) => Trouble::new(Exit::Busy, text),
        RunError::Claim(ClaimError::Os { source, .. })
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            Trouble::new(Exit::NotAllowed, text).help("--socket PATH puts the control socket elsewhere")
        }
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
        RunError::Trace(error) => {
            let exit = match error {
                TraceError::Os { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                    Exit::NotAllowed
                }
                TraceError::Os { .. } | TraceError::Taken { .. } | TraceError::Short { .. } => Exit::Failed,
            };
            Trouble::new(exit, text).help("SHIFTBOSS_TRACE names a file for it: name another, or none")
        }
        RunError::OpenFiles { .. } => Trouble::new(Exit::Failed, text)
            .help("raise it: `ulimit -n`, or LimitNOFILE= in a unit of systemd"),
        _ => Trouble::new(Exit::Failed, text),
    }
}

const DEFAULT: &str = "default";
