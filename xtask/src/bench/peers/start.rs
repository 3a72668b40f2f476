//! From the start of a manager to the first line of its fourth worker.

use std::time::Duration;

use anyhow::Result;

use super::super::first_line::ms_between;
use super::super::stats::median;
use super::running::Running;
use super::table::{Better, Cell, Line, Table, column};
use super::{Peers, all, plan::Worker};

pub(super) fn measure(peers: &Peers) -> Result<Vec<Table>> {
    let compared: Vec<_> = all().into_iter().filter(|peer| !peer.only_serves).collect();
    let mut samples: Vec<Result<Vec<f64>, String>> = vec![Ok(Vec::new()); compared.len()];
    for _ in 0..peers.times(3, 1) {
        for (peer, samples) in compared.iter().zip(&mut samples) {
            let Ok(taken) = samples else { continue };
            match once(peers, *peer) {
                Ok(ms) => taken.push(ms),
                Err(error) => *samples = Err(format!("{error:#}")),
            }
        }
    }
    let lines: Vec<_> = compared.iter().zip(samples).collect();
    Ok(Worker::ALL.map(|worker| {
        let of_worker = lines.iter().filter(|(peer, _)| peer.worker == worker);
        let lines = of_worker.map(|(peer, samples)| {
            let cells = samples.as_ref().map(|samples| vec![Cell::Number(median(samples))]);
            Line { peer: peer.name, cells: cells.map_err(Clone::clone) }
        });
        let mut table = Table {
            title: format!("Start: {}", worker.name()),
            columns: vec![column("to the fourth worker's first line, ms", 0, Better::Less)],
            lines: lines.collect(),
            why: "shiftboss starts two processes and binds sockets before its first worker; this is a start of the whole \
                  app, which is rare.".to_owned() + worker.why_it_starts_slowly(),
        };
        table.beside_bare();
        table
    })
    .into())
}

fn once(peers: &Peers, peer: super::plan::Peer) -> Result<f64> {
    let mut running = Running::start(peers, peer, WORKERS, false)?;
    let lines = running.first_lines(WORKERS, PATIENCE)?;
    let last = lines.iter().map(|line| line.at).max().unwrap_or(0);
    let took = ms_between(running.started_at, last);
    running.stop()?;
    Ok(took)
}

const WORKERS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(20);
