//! The project's own chores, run as `cargo xtask CHORE`. Reads the command line and hands over to one chore.

mod bare;
mod bench;
mod faults;
mod fuzz;
mod judge;
mod messages;
mod model;
mod mutants;
mod sim;
mod soak;
mod stalls;
mod takeovers;
mod test;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let chore = words.next().unwrap_or_default();
    let words: Vec<OsString> = words.collect();
    let done = match chore.to_str() {
        Some("test") if words.is_empty() => test::run(),
        Some("sim") => sim::run(&words),
        Some("model") => model::run(&words),
        Some("mutants") => mutants::run(&words),
        Some("takeovers") => takeovers::run(&words),
        Some("messages") => messages::run(&words),
        Some("fuzz") => fuzz::run(&words),
        Some("faults") => faults::run(&words),
        Some("soak") => soak::run(&words),
        Some("stalls") => stalls::run(&words),
        Some("judge") => judge::run(&words),
        Some("bench") => bench::run(&words),
        Some("bare-supervisor") => bare::run(&words),
        Some("help" | "--help" | "-h") => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Some(_) | None => {
            eprintln!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The value after a flag, as a number.
fn number<T: std::str::FromStr>(flag: &str, word: Option<&OsString>) -> anyhow::Result<T> {
    word.and_then(|word| word.to_str()?.parse().ok()).ok_or_else(|| anyhow::anyhow!("{flag} needs a number"))
}

const HELP: &str = "\
Usage: cargo xtask CHORE

  test                          All that must hold before a change is taken
  sim [--seconds N | --steps N | --seed S]
                                The simulation of the rules, optimised: for N
                                seconds (default: 60) or N steps, or seed S alone
  model [--only NAME]           All states of small apps, with the full bounds
  mutants [NAME...]             Plants one-line bugs in a copy of the rules;
                                every one must be caught
  takeovers [--kills N] [--upgrades N]
                                The broker process under load, killed (default:
                                1000 times) and upgraded (200 times, twice)
  messages [--exits N] [--kills N]
                                Workers that say something and exit at once
                                (default: 100000), and others under a broker
                                process that is killed (100 times): nothing
                                that was said may be lost
  fuzz [TARGET...] [--seconds N] [--runs N]
                                Bytes by chance (default: for 60 seconds each) to
                                whatever reads the words of others: channel
                                records control configuration core keeper
  faults [ROW...] [--json]
                                Each fault of workers, machine, processes and
                                clients, done to the real binary: a table
  soak [--minutes N] [--seed S]
                                A fault or a command every second under load
                                (default: for 60 minutes)
  stalls [--longest SECONDS]    All tests, while any of their processes stands
                                still again and again (default: up to 3 seconds)
  judge FILE...                 Whether the apps of these traces kept their
                                promises; SHIFTBOSS_TRACE=FILE writes one
  bench [ROW...] [--quick] [--json]
                                Measures beside a baseline of the same run
  bench --peers [ROW...] [--quick] [--write]
                                The same beside PM2, gunicorn, supervisord and
                                others, which it installs by name; --write
                                makes docs/benchmarks.md of it
  bare-supervisor N -- CMD...   That baseline: N workers, respawned, no more";
