//! All states of small apps: every event that can happen in a state, in every order, judged by the oracle after each.
//!
//! The clock stands still: a deadline comes when the explorer lets it come, so every order of deadlines, exits, answers
//! and commands is tried. What takes how long is therefore not judged here (the oracle is told which one wait is over);
//! that a wait which is asked for again ends at another time than before cannot be seen.
//!
//! What must be so: every promise that the oracle judges, after every step; that a state restored from its records is
//! the same and does the same; that idle words change nothing; that no circle of states can be gone round for ever; and
//! that wherever nothing is left that must happen, everything is as wanted and answered. What must have been seen, for
//! all that to mean something, is in `stats`.
//!
//! `MODEL_FULL=1` explores more for many minutes; `MODEL_ONLY=word` the configurations that have it in their names,
//! with `=word` the one of that name.

mod asks;
mod choices;
mod circle;
mod configs;
mod happening;
mod search;
mod seen;
mod shortest;
mod stats;
mod takeover;
mod words;
mod world;

use std::time::Instant;

use configs::Config;
use stats::Stats;

#[test]
fn no_order_of_events_breaks_a_promise() {
    let only = variable("MODEL_ONLY");
    let full = variable("MODEL_FULL").is_some();
    let configs = if full { configs::full() } else { configs::quick() };
    let chosen = |config: &&Config| {
        only.as_deref().is_none_or(|word| match word.strip_prefix('=') {
            Some(name) => config.name == name,
            None => config.name.contains(word),
        })
    };
    let (begun, mut all, mut broken) = (now(), Stats::default(), Vec::new());
    println!("{HEAD}");
    for config in configs.iter().filter(chosen) {
        let begun = now();
        match search::explore(config) {
            Ok(stats) => {
                println!("{}", stats.line(&config.name, begun.elapsed()));
                all.add(stats);
            }
            Err(fault) => {
                let (states, seconds) = (fault.states, begun.elapsed().as_secs_f64());
                println!("{}: broken after {states} states, {seconds:.1} s", config.name);
                println!("{}", shortest::told(config, *fault));
                broken.push(config.name.as_str());
            }
        }
    }
    println!("{}", all.line("in total", begun.elapsed()));
    println!("{}", all.table());
    assert!(broken.is_empty(), "promises are broken in: {broken:?}");
    let never = all.never();
    assert!(only.is_some() || never.is_empty(), "expected and never reached:\n  {}", never.join("\n  "));
}

fn variable(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "the test, unlike core, may look at its environment")]
    std::env::var(name).ok()
}

pub(crate) fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the test, unlike core, may look at the clock")]
    Instant::now()
}

const HEAD: &str = "\
configuration                                states  transitions    at rest  longest path  circles  seconds";
