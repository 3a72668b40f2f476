//! A worker that crashes as soon as it is there.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::plan::{Peer, Worker};
use super::running::Running;
use super::table::{Better, Cell, Line, Table, column};
use super::{Peers, all};

pub(super) fn measure(peers: &Peers) -> Result<Vec<Table>> {
    let length = if peers.bench.quick { LENGTH / 10 } else { LENGTH };
    let is_of_interest = |peer: &Peer| match peer.worker {
        Worker::Small => true,
        Worker::Node => peer.name != super::table::BARE,
        // gunicorn beneath others differs from any other program only in that it starts slowly.
        Worker::Python => peer.spins,
    };
    let compared: Vec<Peer> = all().into_iter().filter(is_of_interest).collect();
    let (hot, calm): (Vec<Peer>, Vec<Peer>) = compared.iter().partition(|peer| peer.spins);
    // Whoever takes a core for itself has its time alone; the others have theirs together.
    let mut seen = storm(peers, &calm, length);
    for peer in hot {
        seen.extend(storm(peers, &[peer], length));
    }
    let line = |peer: &Peer| {
        let found = seen.iter().find(|line| line.0 == peer.name && line.1 == peer.worker);
        found.map(|(_, _, cells)| Line { peer: peer.name, cells: cells.clone() })
    };
    Ok(vec![Table {
        title: format!("Four workers that crash at once, for {} s", length.as_secs()),
        columns: vec![
            column("starts", 0, Better::Neither),
            column("CPU of the manager, ms", 0, Better::Less),
            column("in the end", 0, Better::Neither),
        ],
        lines: compared.iter().filter_map(line).collect(),
        why: "Who has given up uses nothing any more; shiftboss goes on trying.".to_owned(),
    }])
}

type Seen = (&'static str, Worker, Result<Vec<Cell>, String>);

fn storm(peers: &Peers, who: &[Peer], length: Duration) -> Vec<Seen> {
    let start =
        |peer: &Peer| (*peer, Running::start(peers, *peer, WORKERS, true).map(|running| (running, 0)));
    let mut all: Vec<_> = who.iter().map(start).collect();
    let until = Instant::now() + length;
    while Instant::now() < until {
        let soon = Instant::now() + LOOK / u32::try_from(who.len()).unwrap_or(1);
        for (_, subject) in &mut all {
            if let Ok((running, starts)) = subject
                && let Ok(more) = running.lines_until(soon)
            {
                *starts += more;
            }
        }
    }
    let mut seen = Vec::new();
    for (peer, subject) in all {
        let cells = subject.and_then(|(mut running, starts)| {
            let cpu = running.cpu_ms()?;
            let is_there = running.is_there();
            let last = running.lines_until(Instant::now() + LAST)?;
            let word = match (is_there, last) {
                (false, _) => "the manager has ended",
                (true, 0) => "no more starts",
                (true, _) => "goes on",
            };
            let cpu = if is_there { Cell::Number(cpu) } else { Cell::Text("-".into()) };
            running.stop()?;
            Ok(vec![Cell::Number(starts as f64), cpu, Cell::Text(word.into())])
        });
        seen.push((peer.name, peer.worker, cells.map_err(|error| format!("{error:#}"))));
    }
    seen
}

const WORKERS: usize = 4;
const LENGTH: Duration = Duration::from_secs(20);
/// How often each is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// In which whoever goes on starts somebody.
const LAST: Duration = Duration::from_secs(2);
