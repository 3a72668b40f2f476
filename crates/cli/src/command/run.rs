//! `run`: the app in the foreground, from its file or straight from the line.

mod line;
mod log;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use shiftboss::address::Address;
use shiftboss::log::{Line, Log, Told};
use shiftboss::os::holder::Holder;
use shiftboss::os::instance::{ClaimError, Running, default_socket, running_above};
use shiftboss::os::listener::BindError;
use shiftboss::{AppOptions, OwnProcess, RunError, Setting, TraceError};
use shiftboss_api::Event;

use self::log::RunLog;
use super::configuration;
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
    let mut app = if from_line {
        let app = line::app(asked, output)?;
        can_be_launched(&app, output)?;
        app
    } else {
        configuration::read(&configuration::file(global), global, output)?.options
    };
    if let Some(name) = &global.app {
        app.app = find::name(name)?.to_owned();
    }
    let environment = configuration::environment(global);
    let socket = global.socket.clone().unwrap_or_else(|| default_socket(&app.app));
    Ok((app, Setting { socket, environment, trace: trace() }))
}

/// The kernel sends us TERM when the thread that started us ends (`PR_SET_PDEATHSIG`, prctl(2)).
fn end_with_parent() -> Result<(), Trouble> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
        .map_err(|error| Trouble::new(Exit::Failed, format!("cannot end with the parent: {error}")))
}

/// Shows all that keeps workers from being launched.
fn can_be_launched(app: &AppOptions, output: &Output) -> Result<(), Trouble> {
    let Err(wrong) = shiftboss::check(app) else { return Ok(()) };
    for error in wrong {
        let help = error.help();
        output.trouble(&Trouble { help, ..Trouble::new(Exit::Failed, error.to_string()) });
    }
    Err(Trouble::new(Exit::Failed, ""))
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
        RunError::Listen { broker, source: BindError::InUse { address, holder } } => {
            let of_app = holder.as_ref().and_then(|holder| held_by_app(broker, address, holder));
            of_app.unwrap_or_else(|| {
                Trouble::new(Exit::Failed, text).help("stop it, or choose another address")
            })
        }
        RunError::Listen { source: BindError::NotPermitted { address: Address::Unix(_), .. }, .. } => {
            Trouble::new(Exit::NotAllowed, text).help("choose a path in a folder of your own")
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

/// Whoever holds an address for an app is started again when it is stopped alone: the app is what is to be named.
fn held_by_app(broker: &str, address: &Address, holder: &Holder) -> Option<Trouble> {
    let Running { app, socket, pid } = running_above(holder.pid)?;
    let which = match default_socket(&app) == socket {
        true => format!("--app {app}"),
        false => format!("--socket {}", socket.display()),
    };
    let error = format!("broker `{broker}`: {address} is in use by the app `{app}`, pid {pid}");
    let help = format!("`shiftboss {which} stop --all` ends it; or choose another address");
    Some(Trouble::new(Exit::Failed, error).help(help))
}
