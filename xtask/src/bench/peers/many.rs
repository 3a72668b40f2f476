//! A thousand workers of the smallest kind, and ten thousand under shiftboss.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Resource, getrlimit};

use super::super::first_line::ms_between;
use super::plan::{Peer, Worker};
use super::running::Running;
use super::table::{Better, Cell, Line, Table, column};
use super::{Peers, all};

pub(super) fn measure(peers: &Peers) -> Result<Vec<Table>> {
    let mut lines = Vec::new();
    for peer in all().into_iter().filter(|peer| peer.worker == Worker::Small) {
        let cells = thousand(peers, peer).map_err(|error| format!("{error:#}"));
        lines.push(Line { peer: peer.name, cells });
    }
    let thousand = Table {
        title: "A thousand workers".into(),
        columns: vec![
            column("start to the last first line, s", 2, Better::Less),
            column("memory of the manager's own processes (PSS), KB", 0, Better::Less),
            column("stop, s", 2, Better::Less),
        ],
        lines,
        why: "s6 and runit are a process for each worker.".to_owned(),
    };
    Ok(vec![thousand, ten_thousand(peers)?])
}

fn thousand(peers: &Peers, peer: Peer) -> Result<Vec<Cell>> {
    let mut running = Running::start(peers, peer, THOUSAND, false)?;
    let lines = running.first_lines(THOUSAND, LONGEST)?;
    let last = lines.iter().map(|line| line.at).max().unwrap_or(0);
    let took = ms_between(running.started_at, last) / 1000.0;
    thread::sleep(SETTLE);
    let memory = running.pss_kb()?;
    let stop =
        running.stop()?.map_or_else(|| Cell::Text("killed".into()), |took| Cell::Number(took.as_secs_f64()));
    Ok(vec![Cell::Number(took), Cell::Number(memory), stop])
}

/// In as many apps as the limit of open files asks for.
fn ten_thousand(peers: &Peers) -> Result<Table> {
    let workers = if peers.bench.quick { THOUSAND } else { 10 * THOUSAND };
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let in_one = usize::try_from(most / DESCRIPTORS).unwrap_or(usize::MAX).saturating_sub(SPARE);
    let apps = workers.div_ceil(in_one.max(1));
    let each = workers / apps;
    let ours =
        super::small::peers().into_iter().find(|peer| peer.name == "shiftboss").context("no shiftboss")?;
    let begun = Instant::now();
    let mut running = Vec::new();
    for _ in 0..apps {
        running.push(Running::start(peers, ours, each, false)?);
    }
    for app in &mut running {
        app.first_lines(each, LONGEST * 2)?;
    }
    let start = begun.elapsed().as_secs_f64();
    thread::sleep(SETTLE);
    let memory = running.iter().map(Running::pss_kb).sum::<Result<f64>>()?;
    let told = |app: &Running, words: &[&str]| -> Result<Vec<u8>> {
        let mut command = std::process::Command::new(&peers.bench.shiftboss);
        command.arg("--socket").arg(app.place.file("control")).args(["--timeout", "300s"]).args(words);
        crate::workspace::output(
            command.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::null()),
        )
    };
    let begun = Instant::now();
    let mut ready = 0;
    for app in &running {
        let status: serde_json::Value = serde_json::from_slice(&told(app, &["status", "--json"])?)?;
        ready += status["brokers"][0]["ready"].as_u64().unwrap_or(0);
    }
    let status = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    thread::scope(|scope| -> Result<()> {
        let recycles: Vec<_> = running
            .iter()
            .map(|app| scope.spawn(move || told(app, &["--quiet", "recycle", "web"])))
            .collect();
        for recycle in recycles {
            recycle.join().map_err(|_| anyhow::anyhow!("a thread has panicked"))??;
        }
        Ok(())
    })?;
    let recycle = begun.elapsed().as_secs_f64();
    // More lines than there is room for: who still waits to write one could not leave.
    for app in &mut running {
        app.first_lines(each, LONGEST)?;
    }
    // One after the other; without the look around for what is left, which takes longer.
    let mut stop = Duration::ZERO;
    for app in &mut running {
        stop += app.stop()?.context("it did not end in time")?;
    }
    let stop = stop.as_secs_f64();
    let cells = [start, memory, status, ready as f64, recycle, stop].map(Cell::Number).to_vec();
    Ok(Table {
        title: format!(
            "{} workers under shiftboss, in {apps} app(s)",
            super::table::shown((each * apps) as f64, 0)
        ),
        columns: vec![
            column("start to the last first line, s", 2, Better::Neither),
            column("memory (PSS), KB", 0, Better::Neither),
            column("`status`, s", 2, Better::Neither),
            column("ready in it", 0, Better::Neither),
            column("recycle, s", 1, Better::Neither),
            column("stop, s", 2, Better::Neither),
        ],
        lines: vec![Line { peer: "shiftboss", cells: Ok(cells) }],
        why: "".to_owned(),
    })
}

const THOUSAND: usize = 1000;
/// Of each worker, in the keeper and in the broker process.
const DESCRIPTORS: u64 = 4;
/// Workers less, for what else is open.
const SPARE: usize = 200;
const SETTLE: Duration = Duration::from_secs(2);
/// Whoever takes longer is not measured.
const LONGEST: Duration = Duration::from_secs(60);
