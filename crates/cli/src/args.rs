//! The command line: what can be asked, and the help that says so. What the verbs do is left to `command`.

mod value;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use self::value::{read_time, read_workers, read_workers_to_run};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "shiftboss",
    version,
    about = "Keeps workers on shift: replaces the dead at once, changes the whole shift without dropping a request",
    before_help = "\
Examples:
  shiftboss demo                            see it work
  shiftboss run -w 4 -p 3000 -- ./server    four workers that share port 3000
  shiftboss run                             the app of ./shiftboss.toml
  shiftboss status
  shiftboss recycle api                     new workers, no dropped request",
    after_help = "\
Exit codes: 0 done, 1 failed, 2 usage, 3 --check: not as wanted, 69 no app answers,
75 busy or timed out, 77 not allowed, 78 configuration invalid, 130 interrupted",
    disable_help_subcommand = true,
    max_term_width = 80,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Options that every verb takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every verb")]
pub(crate) struct Global {
    /// The app's configuration [default: ./shiftboss.toml]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The app of this name
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) app: Option<String>,
    /// The app that answers at this socket
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Environment of the configuration [default: $env, then "default"]
    #[arg(long = "env", global = true, value_name = "NAME")]
    pub(crate) environment: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Longest wait, as 500ms, 30s or 1h30m, at most a day; a command that is not done by then goes on
    #[arg(long, global = true, value_name = "TIME", value_parser = read_time)]
    pub(crate) timeout: Option<Duration>,
    /// Say nothing but errors and results
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say also which file is read, which socket is asked, and how long it took
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Colour the output
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = Color::Auto)]
    pub(crate) color: Color,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    /// In any case
    Always,
    /// Not at all
    Never,
}

/// One intent each.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the app in the foreground, from its file or straight from the line
    #[command(before_help = "\
Examples:
  shiftboss run                                  the app of ./shiftboss.toml
  shiftboss run -w 4 -p 3000 -- ./server         four workers that share port 3000
  shiftboss run -p unix:///run/x.sock --kind notify -- ./server")]
    Run(RunArgs),
    /// See the whole promise kept on built-in workers, with a count of failed requests
    Demo(DemoArgs),
    /// Show brokers and workers
    #[command(before_help = "\
Examples:
  shiftboss status
  shiftboss status api --check || echo \"api is not as wanted\"")]
    Status(StatusArgs),
    /// Replace workers by new ones, each ready before its predecessor leaves
    #[command(before_help = "\
Examples:
  shiftboss recycle api
  shiftboss recycle api/2                        the worker of slot 2 only
  shiftboss recycle --all --timeout 2m")]
    Recycle(Targets),
    /// Send all workers home and start none until `resume`
    #[command(before_help = "Example:\n  shiftboss drain api")]
    Drain(Targets),
    /// Start the workers of a drained broker again
    #[command(before_help = "\
Examples:
  shiftboss resume api
  shiftboss resume jobs --now                    although its schedule has closed it")]
    Resume(ResumeArgs),
    /// Change how many workers a broker keeps
    #[command(before_help = "Example:\n  shiftboss scale api 6")]
    Scale(ScaleArgs),
    /// Tell workers something: any JSON value, which they get on their channel
    #[command(
        before_help = "\
Examples:
  shiftboss send api '{\"reload\":[\"prices\"]}'
  shiftboss send api/2 jobs '\"hello\"'           slot 2 of api, all of jobs
  ./make-config | shiftboss send --all -",
        override_usage = "shiftboss send [OPTIONS] TYPE[/SLOT]... JSON\n       shiftboss send [OPTIONS] --all JSON"
    )]
    Send(SendArgs),
    /// Ask workers something and print each one's answer
    #[command(before_help = "\
Examples:
  shiftboss call api '\"ping\"'
  shiftboss call api/2 '{\"cache\":\"size\"}' --timeout 30s")]
    Call(CallArgs),
    /// Stop the whole app: every worker finishes what it has
    #[command(before_help = "Example:\n  shiftboss stop --all")]
    Stop(StopArgs),
    /// Hand the app over to the shiftboss that is now on disk; its workers go on
    #[command(before_help = "\
Examples:
  shiftboss upgrade --check
  shiftboss upgrade")]
    Upgrade(UpgradeArgs),
    /// Show what happened; with -f also what happens
    #[command(before_help = "\
Examples:
  shiftboss events -n 20
  shiftboss events -f --json | jq 'select(.event == \"worker_death\")'")]
    Events(EventsArgs),
    /// Wait until brokers are ready, drained or recycled
    #[command(before_help = "\
Examples:
  shiftboss wait --for ready --timeout 30s
  shiftboss wait api --for recycled")]
    Wait(WaitArgs),
    /// Check the configuration and start nothing
    Check(CheckArgs),
    /// Print a completion script for a shell
    #[command(before_help = "\
Example:
  shiftboss completions bash > ~/.local/share/bash-completion/completions/shiftboss")]
    Completions(CompletionsArgs),
    /// Print the manual page of shiftboss or of a verb
    #[command(before_help = "Example:\n  shiftboss man recycle | man -l -")]
    Man(ManArgs),
    /// The worker of `demo`
    #[command(hide = true)]
    DemoWorker,
    /// The load generator of `demo`
    #[command(hide = true)]
    DemoLoad(DemoLoadArgs),
}

/// `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// How many workers [default: 1]; only with a command
    #[arg(
        short,
        long,
        value_name = "N",
        requires = "command",
        allow_negative_numbers = true,
        value_parser = read_workers_to_run
    )]
    pub(crate) workers: Option<u32>,
    /// Address that the workers share: 3000, 127.0.0.1:3000, tcp://:3000, udp://…, unix:///PATH; may be given again
    #[arg(short = 'p', long = "listen", value_name = "ADDR", requires = "command")]
    pub(crate) listen: Vec<String>,
    /// How the workers take part [default: guessed from the command]
    #[arg(long, value_enum, requires = "command")]
    pub(crate) kind: Option<Kind>,
    /// Run without a keeper above the broker process: should that be killed, the workers end with it
    #[arg(long)]
    pub(crate) no_keeper: bool,
    /// End when the process that started this one does
    #[arg(long, hide = true)]
    pub(crate) with_parent: bool,
    /// The workers' program and its arguments, instead of a configuration
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

/// How workers take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A program for Node's cluster
    Node,
    /// Says READY=1 (`sd_notify`)
    Notify,
    /// Any program
    Plain,
}

/// `upgrade`.
#[derive(Debug, Args)]
pub(crate) struct UpgradeArgs {
    /// Only ask it whether it could take over
    #[arg(long)]
    pub(crate) check: bool,
    /// Return as soon as the command is taken
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// End after so many seconds; exit 1 if a promise broke
    #[arg(long, value_name = "N")]
    pub(crate) seconds: Option<u64>,
}

/// `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Only brokers of these types
    #[arg(value_name = "TYPE")]
    pub(crate) types: Vec<String>,
    /// Exit with 3 when something is not as wanted
    #[arg(long)]
    pub(crate) check: bool,
}

/// Whom `recycle`, `drain` and `resume` are about.
#[derive(Clone, Debug, Args)]
pub(crate) struct Targets {
    /// Which brokers, by the type of their workers
    #[arg(value_name = "TYPE")]
    pub(crate) types: Vec<String>,
    /// Every broker of the app
    #[arg(long, conflicts_with = "types")]
    pub(crate) all: bool,
    /// Do not wait; print the request's id
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// `resume`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    pub(crate) targets: Targets,
    /// Also outside of its schedule, until that closes it next
    #[arg(long)]
    pub(crate) now: bool,
}

/// `scale`.
#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    /// Which broker, by the type of its workers
    #[arg(value_name = "TYPE")]
    pub(crate) broker: String,
    /// How many workers it shall keep
    #[arg(value_name = "N", allow_negative_numbers = true, value_parser = read_workers)]
    pub(crate) workers: u32,
    /// Do not wait; print the request's id
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// `send`.
#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// Whom, by the type of the workers, and what: the last word is JSON, or - for standard input
    #[arg(value_name = "TYPE[/SLOT]... JSON", allow_negative_numbers = true)]
    pub(crate) words: Vec<String>,
    /// Every broker of the app
    #[arg(long)]
    pub(crate) all: bool,
}

/// `call`.
#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    /// Whom, by the type of the workers
    #[arg(value_name = "TYPE[/SLOT]")]
    pub(crate) target: String,
    /// What: JSON, or - for standard input. Each worker has 5 s for its answer, or `--timeout`
    #[arg(value_name = "JSON", allow_negative_numbers = true)]
    pub(crate) message: String,
}

/// `stop`.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Taken to say what to use instead
    #[arg(value_name = "TYPE", hide = true)]
    pub(crate) types: Vec<String>,
    /// The whole app
    #[arg(long)]
    pub(crate) all: bool,
    /// Do not wait; print the request's id
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// `events`.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// Go on with what happens
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the last N of those that are kept
    #[arg(short = 'n', long = "last", value_name = "N")]
    pub(crate) last: Option<usize>,
}

/// `wait`.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Which brokers, by the type of their workers [default: all that there are; who is closed by the schedule is as wanted]
    #[arg(value_name = "TYPE")]
    pub(crate) types: Vec<String>,
    /// For what
    #[arg(long = "for", value_enum, value_name = "STATE")]
    pub(crate) goal: Goal,
}

/// What can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Goal {
    /// As many workers ready as wanted, none failing
    Ready,
    /// All workers gone after a drain
    Drained,
    /// No recycle under way; exit 1 if it fails meanwhile
    Recycled,
}

/// `check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Print every setting and where it comes from
    #[arg(long)]
    pub(crate) explain: bool,
}

/// `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// `man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The page of this verb
    #[arg(value_name = "VERB")]
    pub(crate) verb: Option<String>,
}

/// `demo-load`.
#[derive(Debug, Args)]
pub(crate) struct DemoLoadArgs {
    /// Where to
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) target: String,
    /// Requests a second
    #[arg(long, default_value_t = 200.0)]
    pub(crate) rate: f64,
    /// How long [default: until standard input ends]
    #[arg(long)]
    pub(crate) seconds: Option<f64>,
    /// A connection for each request
    #[arg(long)]
    pub(crate) no_keep_alive: bool,
    /// Share of slow requests, 0 to 1
    #[arg(long, default_value_t = 0.1)]
    pub(crate) slow_share: f64,
    /// Share of requests that arrive slowly, 0 to 1
    #[arg(long, default_value_t = 0.1)]
    pub(crate) trickle_share: f64,
    /// Most connections at once
    #[arg(long, default_value_t = 1024)]
    pub(crate) connections: usize,
    /// So many clients back to back, instead of a rate
    #[arg(long)]
    pub(crate) closed: Option<usize>,
    /// Decides which requests are slow
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Path of a plain request [default: /]
    #[arg(long)]
    pub(crate) path: Option<String>,
    /// Path of a slow request
    #[arg(long, default_value = "/slow?ms={ms}")]
    pub(crate) slow_path: String,
    /// Longest a request may take, in seconds
    #[arg(long, default_value_t = 15.0)]
    pub(crate) timeout_seconds: f64,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_workers_program_keeps_its_own_options() {
        let cli =
            Cli::try_parse_from(["shiftboss", "run", "-w", "4", "-p", "3000", "--", "x", "--json", "-p"]);
        let Verb::Run(run) = cli.unwrap().verb else { panic!("not run") };
        assert_eq!((run.workers, run.listen, run.command.len()), (Some(4), vec!["3000".to_owned()], 3));
    }

    #[test]
    fn global_options_stand_before_or_after_the_verb() {
        for line in [["shiftboss", "--json", "status"], ["shiftboss", "status", "--json"]] {
            assert!(Cli::try_parse_from(line).unwrap().global.json);
        }
    }

    #[test]
    fn all_and_a_type_contradict_each_other() {
        let wrong = Cli::try_parse_from(["shiftboss", "recycle", "api", "--all"]).unwrap_err();
        assert_eq!(wrong.exit_code(), 2);
    }

    #[test]
    fn help_is_no_wider_than_eighty_columns() {
        for mut verb in Cli::command().get_subcommands().cloned().chain([Cli::command()]) {
            let help = verb.clone().term_width(80).render_long_help().to_string();
            let wide = help.lines().find(|line| line.chars().count() > 80);
            assert_eq!(wide, None, "{}", verb.render_usage());
        }
    }
}
