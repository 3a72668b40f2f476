//! `docs/benchmarks.md`, made of one run.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::Peers;
use super::table::Table;

pub(super) struct Page {
    load_at_start: String,
    tables: Vec<(&'static str, Vec<Table>)>,
}

impl Page {
    pub(super) fn begin() -> Page {
        Page { load_at_start: load(), tables: Vec::new() }
    }

    pub(super) fn add(&mut self, row: &'static str, tables: Vec<Table>) {
        self.tables.push((row, tables));
    }

    pub(super) fn write(&self, path: &Path, peers: &Peers) -> Result<()> {
        std::fs::write(path, self.text(peers)).with_context(|| format!("cannot write {}", path.display()))
    }

    fn text(&self, peers: &Peers) -> String {
        let versions = peers.installed.versions();
        let versions: Vec<String> =
            versions.into_iter().map(|(name, version)| format!("{name} {version}")).collect();
        let quick = if peers.bench.quick {
            "\n**A quick run: it shows that it works, and measures little.**\n"
        } else {
            ""
        };
        let mut text = HEAD.to_owned();
        text += &format!(
            "\nLinux {}, {} processors; {}.\nLoad of the machine (1, 5, 15 minutes) when the run began: {}; when it \
             ended: {}.\n{quick}",
            std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
            std::thread::available_parallelism().map_or(0, usize::from),
            versions.join(", "),
            self.load_at_start,
            load(),
        );
        for (row, tables) in &self.tables {
            let notes = NOTES.iter().find(|(of, _)| of == row).map_or("", |(_, notes)| notes);
            text += &format!("\n{notes}\n");
            for table in tables {
                text += &format!("\n{}", table.markdown());
            }
        }
        text += BEHIND;
        let behind: Vec<String> =
            self.tables.iter().flat_map(|(_, tables)| tables).flat_map(Table::behind).collect();
        text += &if behind.is_empty() { "None, in this run.\n".to_owned() } else { behind.join("\n") + "\n" };
        text
    }
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(", ")
}

const HEAD: &str = "\
# Beside others

Written by `cargo xtask bench --peers --write`, all of it in one run; every figure can be had again by the same command,
which installs the peers by name from npm, PyPI and Debian into `target/peers` (s6 and runit by apt, as root).

What is compared has the same worker: *any program* is `test-worker`, a small process that waits; *Node* is
`xtask/bench/peers/server.js`, an HTTP server that finishes what it has when it is told to leave; *Python* is
`xtask/bench/app.py` in gunicorn with threads. *bare* is the least that can be called a supervisor: it starts a process
when one ends and does nothing else. A worker says that it is there by a line with the monotonic clock into a FIFO that
passes every manager; a Node server says it when it listens, a gunicorn worker when it has loaded its program.

Peers run with their defaults unless a row says otherwise, in the foreground where they can, and all see the same
machine: where they are compared in time they take turns, round by round. Figures are medians. The managers do
different things, and a small figure may be that of one that does less.
";

const NOTES: [(&str, &str); 6] = [
    (
        "crash",
        "## Crash and rest\n\n\
         All managers run at the same time with four workers each. First nothing happens: memory is the proportional set \
         size\n(`smaps_rollup`) of all processes of the manager but workers and what is below them; wake-ups are the \
         voluntary context\nswitches of all their threads. gunicorn beneath another manager is a worker, with a process \
         of its own below it. Then one\nworker after another is killed, each manager in turn, and each worker long \
         after its start.",
    ),
    (
        "reload",
        "## Replacing all workers under load\n\n\
         Four workers under two loads at once, each of 200 requests a second: one with a connection for each request, \
         one with\nkept connections. A tenth of the requests takes 0.5 to 3 s to answer, a tenth arrives over 0.4 s. \
         Every 3 s for 30 s all\nworkers are replaced, unless that is still under way, each manager in its own way: \
         `shiftboss recycle` (surge 4), the rolling\nof `cluster.js`, `pm2 reload`, `recycleWorkers()`, HUP for gunicorn, \
         `circusctl reload`, `supervisorctl restart`,\n`s6-svc -wr -r` and `sv restart` one service after the other. \
         *Failed*: refused, reset, cut, or no answer in 15 s. *Crossed*:\na kept connection that ended without a byte of \
         answer; HTTP allows a server to close an idle connection at any moment, and\na killed worker looks the same. \
         supervisord, s6 and runit give no socket to several workers: there each gunicorn binds the\nport with \
         `--reuse-port`. PM2 and others wait as long as their defaults say, which is less than the slowest request \
         takes.",
    ),
    (
        "start",
        "## Start\n\n\
         From the execution of the manager (of `pm2 start`, which puts its daemon into the background) to the first \
         line of the\nfourth worker; median of three.",
    ),
    (
        "storm",
        "## A crash loop\n\n\
         CPU is that of the manager's processes alone, as far as they still are there, in ticks of 10 ms. A start costs \
         the machine\nmore than it costs the manager. Those that start without a pause were measured one by one, the \
         others together.",
    ),
    (
        "messages",
        "## Messages\n\n\
         The worker sends as fast as it can, the primary's program parses each message and sees that they come in \
         order. Node's\nprimary reads what a worker writes one by one; it has nothing for many at once. What a cluster program \
         says is parsed by\nshiftboss's broker process, where nobody follows it in this run.",
    ),
    (
        "many",
        "## Many workers\n\n\
         With `test-worker`. Node's cluster, PM2's cluster mode, okanjo-app-broker and gunicorn have no such worker: \
         theirs takes tens\nof MB. s6 and supervisord have limits that were raised: `s6-svscan -c`, `minfds`. Whoever \
         needs more than 60 s is not\nwaited for. Each worker needs four descriptors in the processes of shiftboss, so \
         10,000 in one app need a hard limit of\nopen files of 40,100; an app that may not have them says so and starts \
         nothing. Where the limit is lower they are in\nseveral apps, all started, recycled and asked at the same time.",
    ),
];

const BEHIND: &str = "\n## Where shiftboss is not ahead\n\nFigures of this run, by more than 5 %:\n\n";
