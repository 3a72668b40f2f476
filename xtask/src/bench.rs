//! `cargo xtask bench`: what shiftboss costs, beside a baseline that runs in the same minutes on the same machine. Only
//! ratios and differences are judged; a figure that is not within reach is printed as it is.

mod call;
mod crash;
mod events;
mod figure;
mod figures;
mod first_line;
mod gap;
mod hand;
mod handle;
mod idle;
mod load;
mod messages;
mod node;
mod peers;
mod proc;
mod recycle;
mod spawn;
mod start;
mod stats;
mod supervisor;
mod thousand;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use rustix::process::{getpid, set_child_subreaper};

use self::figure::{Figure, Row};
use self::figures::Figures;
use crate::workspace::{release_programs, root};

/// Measures the rows asked for, or all. Returns whether all is within reach.
pub(crate) fn run(words: &[OsString]) -> Result<bool> {
    if words.iter().any(|word| word == "--peers") {
        return peers::run(words);
    }
    let asked = Asked::parse(words)?;
    let bench = Bench::prepare(asked.quick)?;
    let mut all_good = true;
    let mut rows = Vec::new();
    for (name, measure) in asked.rows {
        eprintln!("{name}...");
        let begun = Instant::now();
        let figures = measure(&bench).map_err(|error| format!("{error:#}"));
        let row = Row { name, seconds: begun.elapsed().as_secs_f64(), figures };
        all_good &= row.is_good();
        if !asked.json {
            println!("{}", row.table());
        }
        rows.push(row.json());
    }
    if asked.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    }
    Ok(all_good)
}

type Measure = fn(&Bench) -> Result<Vec<Figure>>;

/// In the order in which they are run.
const ROWS: [(&str, Measure); 18] = [
    ("handle", handle::measure),
    ("crash", crash::measure),
    ("start", start::measure),
    ("idle", idle::measure),
    ("gap", gap::measure),
    ("thousand", thousand::measure),
    ("spawn", spawn::measure),
    ("messages", messages::measure),
    ("messages-kept", messages::kept),
    ("call", call::measure),
    ("node", node::measure),
    ("node-recycle", node::recycles),
    ("recycle", recycle::kept_connections),
    ("recycle-new", recycle::new_connections),
    ("recycle-full", recycle::saturated),
    ("recycle-gunicorn", recycle::gunicorn),
    ("recycle-gunicorn-new", recycle::gunicorn_new),
    ("recycle-gunicorn-full", recycle::gunicorn_saturated),
];

struct Asked {
    rows: Vec<(&'static str, Measure)>,
    quick: bool,
    json: bool,
}

impl Asked {
    fn parse(words: &[OsString]) -> Result<Asked> {
        let mut asked = Asked { rows: Vec::new(), quick: false, json: false };
        for word in words {
            match word.to_str().unwrap_or_default() {
                "--quick" => asked.quick = true,
                "--json" => asked.json = true,
                name => match ROWS.iter().find(|(row, _)| *row == name) {
                    Some(row) => asked.rows.push(*row),
                    None => {
                        bail!("no row is called {word:?}; there are {}", ROWS.map(|(row, _)| row).join(", "))
                    }
                },
            }
        }
        if asked.rows.is_empty() {
            asked.rows = ROWS.to_vec();
        }
        Ok(asked)
    }
}

/// What every row works with.
struct Bench {
    shiftboss: PathBuf,
    worker: PathBuf,
    /// This program, optimised; its `bare-supervisor` is the baseline.
    own: PathBuf,
    figures: Figures,
    /// Python programs, as `cargo xtask test` installs them.
    venv: PathBuf,
    /// Fewer repetitions: shows that it works, measures little.
    quick: bool,
}

impl Bench {
    fn prepare(quick: bool) -> Result<Bench> {
        let programs = release_programs(&["shiftboss-cli", "shiftboss-test-worker", "xtask"])?;
        let named = |wanted: &str| {
            let found = programs.iter().find(|(name, _)| name == wanted);
            found.map(|(_, path)| path.clone()).with_context(|| format!("cargo built no program `{wanted}`"))
        };
        // What a killed baseline leaves behind is waited for here.
        set_child_subreaper(Some(getpid())).context("cannot become a sub-reaper")?;
        Ok(Bench {
            shiftboss: named("shiftboss")?,
            worker: named("test-worker")?,
            own: named("xtask")?,
            figures: Figures::build()?,
            venv: root().join("target/venv"),
            quick,
        })
    }

    /// So many repetitions, or fewer when it has to be quick.
    fn times(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }
}
