//! `bench --peers`: shiftboss beside the managers that people use today, each from its registry and with its defaults.
//! Whatever is compared was measured in the same run; a peer that cannot be installed or does not do something is shown
//! with the reason.

mod crash;
mod install;
mod many;
mod messages;
mod node;
mod page;
mod plan;
mod python;
mod reload;
mod running;
mod small;
mod start;
mod storm;
mod table;

use std::ffi::OsString;
use std::time::Instant;

use anyhow::{Result, bail};

use self::install::Installed;
use self::page::Page;
use self::plan::Peer;
use self::table::Table;
use super::Bench;
use crate::workspace::root;

/// Measures the rows asked for, or all, and shows them; with `--write` all of them become `docs/benchmarks.md`.
pub(super) fn run(words: &[OsString]) -> Result<bool> {
    let asked = Asked::parse(words)?;
    let mut page = Page::begin();
    let peers = Peers::prepare(asked.quick)?;
    let mut all_good = true;
    for (name, measure) in &asked.rows {
        eprintln!("{name}...");
        let begun = Instant::now();
        match measure(&peers) {
            Ok(tables) => {
                tables.iter().for_each(|table| println!("{}", table.markdown()));
                page.add(name, tables);
            }
            Err(error) => {
                eprintln!("{name}: not measured: {error:#}");
                all_good = false;
            }
        }
        eprintln!("{name}: {:.0} s", begun.elapsed().as_secs_f64());
    }
    if asked.write {
        if !all_good {
            bail!("some of it could not be measured, so the page stays as it is");
        }
        page.write(&root().join("docs/benchmarks.md"), &peers)?;
    }
    Ok(all_good)
}

type Measure = fn(&Peers) -> Result<Vec<Table>>;

/// In the order in which they are run and shown.
const ROWS: [(&str, Measure); 6] = [
    ("crash", crash::measure),
    ("reload", reload::measure),
    ("start", start::measure),
    ("storm", storm::measure),
    ("messages", messages::measure),
    ("many", many::measure),
];

struct Asked {
    rows: Vec<(&'static str, Measure)>,
    quick: bool,
    write: bool,
}

impl Asked {
    fn parse(words: &[OsString]) -> Result<Asked> {
        let mut asked = Asked { rows: Vec::new(), quick: false, write: false };
        for word in words {
            match word.to_str().unwrap_or_default() {
                "--peers" => {}
                "--quick" => asked.quick = true,
                "--write" => asked.write = true,
                name => match ROWS.iter().find(|(row, _)| *row == name) {
                    Some(row) => asked.rows.push(*row),
                    None => bail!(
                        "no row of --peers is called {word:?}; there are {}",
                        ROWS.map(|(row, _)| row).join(", ")
                    ),
                },
            }
        }
        if asked.write && !asked.rows.is_empty() {
            bail!("--write is of the whole page, so it goes with all rows");
        }
        if asked.rows.is_empty() {
            asked.rows = ROWS.to_vec();
        }
        Ok(asked)
    }
}

/// What every row works with.
struct Peers {
    bench: Bench,
    installed: Installed,
}

impl Peers {
    fn prepare(quick: bool) -> Result<Peers> {
        let bench = Bench::prepare(quick)?;
        let installed = Installed::prepare(&bench);
        Ok(Peers { bench, installed })
    }

    fn times(&self, full: usize, quick: usize) -> usize {
        self.bench.times(full, quick)
    }
}

/// All of them, those of one kind of worker together, the baseline first.
fn all() -> Vec<Peer> {
    [small::peers(), node::peers(), python::peers()].concat()
}
