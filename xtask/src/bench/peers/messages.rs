//! Messages of a hundred bytes from one worker to the primary's program.

use std::process::Command;

use anyhow::{Context as _, Result};

use super::super::node::messages::{SHORT, of_shiftboss};
use super::super::stats::median;
use super::Peers;
use super::node::{is_there, modules, program};
use super::table::{Better, Cell, Line, Table, column};
use crate::workspace::output;

pub(super) fn measure(peers: &Peers) -> Result<Vec<Table>> {
    let mut contenders: Vec<Contender> =
        NAMES.iter().map(|(name, take)| Contender::new(name, *take)).collect();
    for _ in 0..peers.times(5, 1) {
        contenders.iter_mut().for_each(|contender| contender.round(peers));
    }
    Ok(vec![Table {
        title: "Messages of a hundred bytes, one worker to its primary".into(),
        columns: vec![
            column("thousand a second", 0, Better::More),
            column("CPU of the primary for a million, s", 2, Better::Less),
        ],
        lines: contenders.into_iter().map(Contender::line).collect(),
        why: "One by one, most of the time goes into a system call for each message, on both sides."
            .to_owned(),
    }])
}

type Take = fn(&Peers) -> Result<String>;

/// Each prints messages a second, then µs of CPU a message.
const NAMES: [(&str, Take); 5] = [
    ("shiftboss library, one by one", |peers| ours(peers, "one")),
    ("shiftboss library, many at once (`send_all`)", |peers| ours(peers, "many")),
    ("shiftboss, cluster program unmodified", cluster),
    ("Node's cluster", |peers| node(peers, "none")),
    ("okanjo-app-broker", |peers| node(peers, "okanjo")),
];

fn ours(peers: &Peers, how: &str) -> Result<String> {
    let count = peers.times(500_000, 50_000).to_string();
    peers.bench.figures.said(&["stream", how, "own", &count])
}

fn cluster(peers: &Peers) -> Result<String> {
    let (rate, cpu) = of_shiftboss(&peers.bench, peers.times(300_000, 30_000), SHORT)?;
    Ok(format!("{rate} {cpu}"))
}

fn node(peers: &Peers, broker: &str) -> Result<String> {
    is_there(peers)?;
    let mut command = Command::new("node");
    command.arg(program("messages.js")).env("BROKER", broker).env_remove("env");
    command.env("COUNT", peers.times(300_000, 30_000).to_string());
    if broker == "okanjo" {
        modules(peers, &mut command)?;
    }
    Ok(String::from_utf8(output(&mut command)?)?)
}

struct Contender {
    name: &'static str,
    take: Take,
    /// Rate and CPU.
    samples: Result<Vec<(f64, f64)>, String>,
}

impl Contender {
    fn new(name: &'static str, take: Take) -> Contender {
        Contender { name, take, samples: Ok(Vec::new()) }
    }

    fn round(&mut self, peers: &Peers) {
        let Ok(samples) = &mut self.samples else { return };
        match (self.take)(peers).and_then(|text| two(&text)) {
            Ok(sample) => samples.push(sample),
            Err(error) => self.samples = Err(format!("{error:#}")),
        }
    }

    fn line(self) -> Line {
        let cells = self.samples.map(|samples| {
            let of = |which: fn(&(f64, f64)) -> f64| median(&samples.iter().map(which).collect::<Vec<_>>());
            vec![Cell::Number(of(|sample| sample.0) / 1000.0), Cell::Number(of(|sample| sample.1))]
        });
        Line { peer: self.name, cells }
    }
}

fn two(text: &str) -> Result<(f64, f64)> {
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(rate)), Some(Ok(cpu))) => Ok((rate, cpu)),
        _ => None.with_context(|| format!("not two numbers: {text:?}")),
    }
}
