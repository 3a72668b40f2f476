//! The `shiftboss` command: reads the command line, hands over to one verb, ends with its exit code.

mod args;
mod command;
mod demo;
mod event_line;
mod exit;
mod find;
mod output;
mod progress;
mod table;
mod text;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use args::{Cli, DemoLoadArgs, Verb};
use exit::{Exit, Trouble};
use output::Output;

fn main() -> ExitCode {
    shiftboss::keep_if_asked();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let output = Output::standard(&cli.global);
    dispatch(cli.verb, &cli.global, &output).unwrap_or_else(|trouble| {
        output.trouble(&trouble);
        trouble.exit.into()
    })
}

fn dispatch(verb: Verb, global: &args::Global, output: &Output) -> Result<ExitCode, Trouble> {
    use command::ask;
    let exit = match verb {
        Verb::Run(run) => command::run::run(global, &run, output),
        Verb::Demo(demo) => command::demo::run(global, &demo, output),
        Verb::Check(check) => command::check::run(global, &check, output),
        Verb::Status(status) => {
            ask(global, output, async |session| command::status::run(session, &status).await)
        }
        Verb::Recycle(to) => ask(global, output, async |session| command::recycle::run(session, &to).await),
        Verb::Drain(to) => ask(global, output, async |session| command::drain::run(session, &to).await),
        Verb::Resume(to) => ask(global, output, async |session| command::resume::run(session, &to).await),
        Verb::Scale(to) => ask(global, output, async |session| command::scale::run(session, &to).await),
        Verb::Send(send) => ask(global, output, async |session| command::send::run(session, &send).await),
        Verb::Call(call) => ask(global, output, async |session| command::call::run(session, &call).await),
        Verb::Stop(stop) => command::stop::check(&stop)
            .and_then(|()| ask(global, output, async |session| command::stop::run(session, &stop).await)),
        Verb::Upgrade(to) => ask(global, output, async |session| command::upgrade::run(session, &to).await),
        Verb::Events(events) => {
            ask(global, output, async |session| command::events::run(session, &events).await)
        }
        Verb::Wait(wait) => ask(global, output, async |session| command::wait::run(session, &wait).await),
        Verb::Completions(completions) => command::completions::run(output, &completions),
        Verb::Man(man) => command::man::run(output, &man),
        Verb::DemoWorker => return Ok(demo::worker::run()),
        Verb::DemoLoad(load) => return Ok(demo::load::run(load_args(load, global.json))),
    };
    exit.map(ExitCode::from)
}

/// Help and version are no errors, unless they cannot be written.
fn usage(error: &clap::Error) -> ExitCode {
    let printed = error.print().and_then(|()| std::io::stdout().flush());
    if let (false, Err(failed)) = (error.use_stderr(), printed) {
        let trouble = output::unwritten(&failed);
        if !trouble.error.is_empty() {
            exit::last_word(&trouble.render());
        }
        return trouble.exit.into();
    }
    if let Some(hint) = hint(error) {
        exit::last_word(&format!("help: {hint}"));
    }
    if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() }
}

/// What was probably meant, in the words of other tools.
fn hint(error: &clap::Error) -> Option<&'static str> {
    match error.kind() {
        ErrorKind::UnknownArgument if std::env::args_os().any(|word| word == "run") => {
            Some("the workers' command comes after `--`: shiftboss run -- CMD")
        }
        ErrorKind::InvalidSubcommand => match error.get(ContextKind::InvalidSubcommand)? {
            ContextValue::String(verb) => of_another_tool(verb),
            _ => None,
        },
        _ => None,
    }
}

fn of_another_tool(verb: &str) -> Option<&'static str> {
    Some(match verb {
        "restart" | "reload" => "`shiftboss recycle TYPE` replaces workers without losing a request",
        "start" => "`shiftboss run` runs an app, `shiftboss resume TYPE` starts drained workers",
        "list" | "ls" | "ps" => "`shiftboss status`",
        "logs" | "log" => {
            "what workers write is in the output of `shiftboss run`; what happened: `shiftboss events`"
        }
        _ => return None,
    })
}

fn load_args(args: DemoLoadArgs, json: bool) -> demo::load::LoadArgs {
    demo::load::LoadArgs {
        target: args.target,
        rate: args.rate,
        seconds: args.seconds,
        keep_alive: !args.no_keep_alive,
        slow_share: args.slow_share,
        trickle_share: args.trickle_share,
        connections: args.connections,
        closed: args.closed,
        seed: args.seed,
        json,
        timeout: Duration::try_from_secs_f64(args.timeout_seconds).unwrap_or(Duration::MAX),
        path: args.path,
        slow_path: args.slow_path,
    }
}
