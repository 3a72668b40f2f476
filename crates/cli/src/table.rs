//! The table of `status`: a head line and a table of workers for each broker. Columns drop from the right, lines
//! never wrap.

use anstyle::Style;
use jiff::Timestamp;
use shiftboss_api::{Broker, BrokerState, Status, Worker, WorkerState};

use crate::output::{BAD, BUSY, FAINT, GOOD, Look};
use crate::text;

/// The status of these brokers of an app as lines.
pub(crate) fn render(status: &Status, brokers: &[&Broker], look: Look, now: Timestamp) -> Vec<String> {
    let longest = brokers.iter().map(|broker| broker.name.chars().count()).max().unwrap_or_default();
    let mut lines = Vec::new();
    for broker in brokers {
        lines.extend(broker_lines(broker, longest.max(NAME), look, now));
        lines.push(String::new());
    }
    lines.push(foot(status, now, look.width));
    lines
}

/// As many workers ready as wanted, or closed by its schedule, and none that keep failing.
pub(crate) fn is_as_wanted(broker: &Broker) -> bool {
    (broker.ready >= broker.wanted || broker.state == BrokerState::Closed) && !broker.degraded
}

fn broker_lines(broker: &Broker, name_width: usize, look: Look, now: Timestamp) -> Vec<String> {
    let mut lines = vec![head(broker, name_width, look, now)];
    lines.extend(workers(broker, look, now));
    if let Some(failure) = &broker.last_failure {
        let style = if broker.degraded { BAD } else { FAINT };
        let line = format!("last failure: {}", text::clean(failure));
        for (at, part) in text::wrap(&line, look.width.saturating_sub(4)).iter().enumerate() {
            let indent = if at == 0 { "  " } else { "    " };
            lines.push(look.paint(&text::cut(&format!("{indent}{part}"), look.width), style));
        }
    }
    if broker.state == BrokerState::Drained {
        let wanted = text::count(broker.wanted, "worker");
        let line = format!("  `shiftboss resume {}` starts {wanted}", broker.name);
        lines.push(look.paint(&text::cut(&line, look.width), FAINT));
    }
    lines
}

fn head(broker: &Broker, name_width: usize, look: Look, now: Timestamp) -> String {
    let plain = Style::new();
    let ready = format!("{}/{} ready", broker.ready, broker.wanted);
    let mut parts = vec![(ready, if is_as_wanted(broker) { GOOD } else { BUSY })];
    match broker.state {
        BrokerState::Open => {}
        BrokerState::Draining => parts.push(("draining".to_owned(), BUSY)),
        BrokerState::Drained => parts.push(("drained".to_owned(), BUSY)),
        BrokerState::Closed => parts.push(("closed".to_owned(), plain)),
        BrokerState::Waiting => parts.push(("waiting".to_owned(), BUSY)),
        BrokerState::Finished => parts.push(("finished".to_owned(), plain)),
    }
    parts.extend(next_change(broker, now).map(|change| (change, plain)));
    if broker.degraded {
        parts.push(("degraded".to_owned(), BAD));
    }
    if broker.recycling {
        parts.push(("recycling".to_owned(), BUSY));
    }
    if broker.generation != broker.target_generation {
        parts.push((format!("generation {} → {}", broker.generation, broker.target_generation), BUSY));
    }
    if broker.standby > 0 {
        parts.push((format!("{} standby", broker.standby), plain));
    }
    if broker.deaths > 0 {
        parts.push((text::count(broker.deaths, "death"), plain));
    }
    if !broker.listen.is_empty() {
        parts.push((format!("listen {}", broker.listen.join(" ")), plain));
    }
    parts.extend(total(broker).map(|total| (total, plain)));

    let mut line = format!("{:name_width$}", broker.name);
    let mut width = line.chars().count();
    for (text, style) in parts {
        let gap = if width == name_width { 1 } else { 3 };
        width += gap + text.chars().count();
        if width > look.width {
            break;
        }
        line.push_str(&" ".repeat(gap));
        line.push_str(&look.paint(&text, style));
    }
    line
}

/// What its schedule does next, and when.
fn next_change(broker: &Broker, now: Timestamp) -> Option<String> {
    let until = text::until(broker.next_change_at.as_ref()?, now)?;
    let does = match broker.state {
        BrokerState::Closed => "opens",
        BrokerState::Open | BrokerState::Waiting => "closes",
        BrokerState::Draining | BrokerState::Drained | BrokerState::Finished => return None,
    };
    Some(format!("{does} in {}", text::age(until)))
}

/// CPU and memory of all its workers; none if neither is known.
fn total(broker: &Broker) -> Option<String> {
    let cpu: Vec<f64> = broker.workers.iter().filter_map(|worker| worker.cpu_percent).collect();
    let memory: Vec<u64> = broker.workers.iter().filter_map(|worker| worker.rss_bytes).collect();
    let cpu = (!cpu.is_empty()).then(|| format!("cpu {:.0}%", cpu.iter().sum::<f64>()));
    let memory = (!memory.is_empty()).then(|| text::bytes(memory.iter().sum()));
    let known: Vec<String> = cpu.into_iter().chain(memory).collect();
    (!known.is_empty()).then(|| known.join("  "))
}

/// What there is no room for is left out, the least important first.
fn foot(status: &Status, now: Timestamp, width: usize) -> String {
    let workers =
        status.brokers.iter().flat_map(|broker| &broker.workers).filter(|worker| worker.pid.is_some());
    let workers = u32::try_from(workers.count()).unwrap_or(u32::MAX);
    let brokers = u32::try_from(status.brokers.len()).unwrap_or(u32::MAX);
    let up = text::since(&status.started_at, now).map(|up| format!("up {}", text::age(up)));
    let environment = match status.environment.as_str() {
        "default" => None,
        other => Some(format!("environment {other}")),
    };
    // How soon each is left out.
    let mut parts = vec![
        (4, Some(format!("shiftboss {}", status.version))),
        (1, up),
        (3, Some(text::count(brokers, "broker"))),
        (2, Some(text::count(workers, "worker"))),
        (0, Some(format!("pid {}", status.pid))),
        (0, environment),
    ];
    let line = |parts: &[(u8, Option<String>)]| {
        let words: Vec<&str> = parts.iter().filter_map(|(_, part)| part.as_deref()).collect();
        format!("{}: {}", status.app, words.join(", "))
    };
    for soonest in (1..=4).rev() {
        if line(&parts).chars().count() <= width {
            break;
        }
        parts.retain(|(soon, _)| *soon < soonest);
    }
    text::cut(&line(&parts), width)
}

/// A column: its title, and how it is aligned.
struct Column {
    title: &'static str,
    right: bool,
    cells: Vec<String>,
}

fn workers(broker: &Broker, look: Look, now: Timestamp) -> Vec<String> {
    if broker.workers.is_empty() {
        return Vec::new();
    }
    let columns = columns(broker, now);
    let shown = fitting(&columns, look.width);
    let title = columns[..shown].iter().map(|column| (column, column.title)).collect::<Vec<_>>();
    let mut lines = vec![look.paint(&row(&title), FAINT)];
    for (at, worker) in broker.workers.iter().enumerate() {
        lines.push(worker_line(worker, &columns[..shown], at, look, now));
    }
    lines
}

fn worker_line(worker: &Worker, columns: &[Column], at: usize, look: Look, now: Timestamp) -> String {
    let cells: Vec<(&Column, &str)> =
        columns.iter().map(|column| (column, column.cells[at].as_str())).collect();
    let mut line = row(&cells);
    let retry = worker.retry_at.as_deref().and_then(|at| text::until(at, now));
    if let Some(retry) = retry {
        let words = format!("   next try in {}", text::took(retry));
        line = text::cut(&format!("{line}{words}"), look.width);
    }
    let (state, style) = state_of(worker.state);
    // The state's word stands once in the line: ids and numbers hold no letters.
    line.replacen(state, &look.paint(state, style), 1)
}

fn columns(broker: &Broker, now: Timestamp) -> Vec<Column> {
    let column = |title, right, cell: &dyn Fn(&Worker) -> Option<String>| Column {
        title,
        right,
        cells: broker.workers.iter().map(|worker| cell(worker).unwrap_or_default()).collect(),
    };
    let milliseconds = |ms: f64| text::took(std::time::Duration::from_secs_f64((ms / 1e3).clamp(0.0, 1e9)));
    let mut columns = vec![
        column("#", false, &|worker| worker.slot.map(|slot| slot.to_string())),
        column("ID", false, &|worker| worker.id.clone()),
        column("PID", false, &|worker| worker.pid.map(|pid| pid.to_string())),
        column("STATE", false, &|worker| Some(state_of(worker.state).0.to_owned())),
    ];
    if broker.workers.iter().any(|worker| worker.generation != broker.generation) {
        columns.push(column("GEN", false, &|worker| Some(worker.generation.to_string())));
    }
    columns.extend([
        column("UP", false, &|worker| text::since(worker.started_at.as_deref()?, now).map(text::age)),
        column("READY", false, &|worker| worker.ready_ms.map(milliseconds)),
        column("CPU", true, &|worker| worker.cpu_percent.map(|cpu| format!("{cpu:.0}%"))),
        column("MEM", true, &|worker| worker.rss_bytes.map(text::bytes)),
    ]);
    columns
}

fn state_of(state: WorkerState) -> (&'static str, Style) {
    match state {
        WorkerState::Starting => ("starting", BUSY),
        WorkerState::Ready => ("ready", GOOD),
        WorkerState::Standby => ("standby", GOOD),
        WorkerState::Stopping => ("stopping", BUSY),
        WorkerState::Backoff => ("backoff", BAD),
    }
}

impl Column {
    fn width(&self) -> usize {
        self.cells.iter().map(|cell| cell.chars().count()).chain([self.title.len()]).max().unwrap_or_default()
    }
}

/// How many columns fit, from the left; at least one.
fn fitting(columns: &[Column], width: usize) -> usize {
    let mut used = 0;
    let fits = columns.iter().take_while(|column| {
        used += GAP + column.width();
        used <= width
    });
    fits.count().max(1)
}

fn row(cells: &[(&Column, &str)]) -> String {
    let mut line = String::new();
    for (column, text) in cells {
        line.push_str(&" ".repeat(GAP));
        let width = column.width();
        let padded = if column.right { format!("{text:>width$}") } else { format!("{text:width$}") };
        line.push_str(&padded);
    }
    line.trim_end().to_owned()
}

const GAP: usize = 2;
/// Names of brokers take at least so many columns, so that the figures of short names stand in line.
const NAME: usize = 6;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::output::capture::PLAIN;

    pub(crate) fn worker(slot: u32, pid: u32) -> Worker {
        Worker {
            id: Some((slot + 1).to_string()),
            slot: Some(slot),
            pid: Some(pid),
            state: WorkerState::Ready,
            generation: 1,
            started_at: Some("2026-11-24T07:38:00Z".into()),
            ready_ms: Some(812.4),
            retry_at: None,
            rss_bytes: Some(160_432_128),
            cpu_percent: Some(10.6),
            numbers: None,
        }
    }

    pub(crate) fn broker(name: &str, workers: Vec<Worker>) -> Broker {
        let count = u32::try_from(workers.len()).unwrap();
        Broker {
            name: name.into(),
            state: BrokerState::Open,
            wanted: count,
            ready: count,
            standby: 0,
            generation: 1,
            target_generation: 1,
            degraded: false,
            recycling: false,
            deaths: 0,
            last_failure: None,
            listen: vec!["tcp://:3000".into()],
            next_change_at: None,
            workers,
        }
    }

    pub(crate) fn status(brokers: Vec<Broker>) -> Status {
        Status {
            app: "shop".into(),
            pid: 120,
            broker_pid: 121,
            version: "0.1.0".into(),
            environment: "default".into(),
            started_at: "2026-11-18T05:00:00Z".into(),
            brokers,
        }
    }

    fn shown(status: &Status, width: usize) -> String {
        let brokers: Vec<&Broker> = status.brokers.iter().collect();
        let now = "2026-11-24T08:00:00Z".parse().unwrap();
        let lines = render(status, &brokers, Look { width, ..PLAIN }, now);
        let wide = lines.iter().find(|line| line.chars().count() > width);
        assert_eq!(wide, None, "a line is wider than {width} columns");
        lines.join("\n")
    }

    /// One broker as wanted, one in trouble, one drained.
    fn mixed() -> Status {
        let mut leaving = worker(2, 10262);
        leaving.state = WorkerState::Stopping;
        let mut api = broker("api", vec![worker(0, 10161), worker(1, 10250), leaving]);
        (api.wanted, api.recycling, api.ready) = (2, true, 2);
        let mut waiting = worker(1, 0);
        (waiting.id, waiting.pid, waiting.state) = (None, None, WorkerState::Backoff);
        (waiting.started_at, waiting.ready_ms, waiting.rss_bytes, waiting.cpu_percent) =
            (None, None, None, None);
        waiting.retry_at = Some("2026-11-24T08:00:02.3Z".into());
        let mut jobs = broker("jobs", vec![worker(0, 11043), waiting]);
        (jobs.ready, jobs.degraded, jobs.deaths, jobs.listen) = (1, true, 10, Vec::new());
        jobs.last_failure = Some("exited with 1: KeyError: 'DATABASE_URL'\u{1b}[2J".into());
        let mut mail = broker("mail", Vec::new());
        (mail.state, mail.wanted) = (BrokerState::Drained, 1);
        status(vec![api, jobs, mail])
    }

    #[test]
    fn the_table_at_eighty_columns() {
        let expected = "\
api    2/2 ready   recycling   listen tcp://:3000   cpu 32%  459 MB
  #  ID  PID    STATE     UP   READY   CPU     MEM
  0  1   10161  ready     22m  812 ms  11%  153 MB
  1  2   10250  ready     22m  812 ms  11%  153 MB
  2  3   10262  stopping  22m  812 ms  11%  153 MB

jobs   1/2 ready   degraded   10 deaths   cpu 11%  153 MB
  #  ID  PID    STATE    UP   READY   CPU     MEM
  0  1   11043  ready    22m  812 ms  11%  153 MB
  1             backoff   next try in 2.3 s
  last failure: exited with 1: KeyError: 'DATABASE_URL'\u{fffd}[2J

mail   0/1 ready   drained   listen tcp://:3000
  `shiftboss resume mail` starts 1 worker

shop: shiftboss 0.1.0, up 6d 3h, 3 brokers, 4 workers, pid 120";
        assert_eq!(shown(&mixed(), 80), expected);
    }

    #[test]
    fn columns_drop_from_the_right_and_never_wrap() {
        let expected = "\
api    1/1 ready
  #  ID  PID    STATE
  0  1   10161  ready

shop: up 6d 3h, pid 120";
        assert_eq!(shown(&status(vec![broker("api", vec![worker(0, 10161)])]), 24), expected);
        for width in 10..120 {
            shown(&mixed(), width);
        }
    }

    #[test]
    fn the_name_of_an_environment_is_more_important_than_numbers() {
        let mut shop = mixed();
        shop.environment = "production-in-frankfurt".into();
        let foot = |width| shown(&shop, width).lines().last().unwrap().to_owned();
        let end = "pid 120, environment production-in-frankfurt";
        assert_eq!(foot(100), format!("shop: shiftboss 0.1.0, up 6d 3h, 3 brokers, 4 workers, {end}"));
        assert_eq!(foot(80), format!("shop: up 6d 3h, 4 workers, {end}"));
        assert_eq!(foot(60), format!("shop: up 6d 3h, {end}"));
        assert_eq!(foot(20), "shop: pid 120, envi…");
    }

    #[test]
    fn workers_of_another_generation_are_told_apart() {
        let mut old = broker("api", vec![worker(0, 5), worker(1, 6)]);
        (old.target_generation, old.workers[1].generation) = (2, 2);
        let text = shown(&status(vec![old]), 80);
        assert!(text.contains("generation 1 → 2") && text.contains("STATE  GEN  UP"), "{text}");
    }

    #[test]
    fn a_degraded_or_short_broker_is_not_as_wanted() {
        let mut api = broker("api", vec![worker(0, 5)]);
        assert!(is_as_wanted(&api));
        api.degraded = true;
        assert!(!is_as_wanted(&api));
        (api.degraded, api.ready) = (false, 0);
        assert!(!is_as_wanted(&api));
    }

    #[test]
    fn what_a_schedule_does_next_is_told() {
        let mut jobs = broker("jobs", Vec::new());
        (jobs.state, jobs.wanted) = (BrokerState::Closed, 2);
        jobs.next_change_at = Some("2026-11-24T09:30:00Z".into());
        assert!(is_as_wanted(&jobs));
        let text = shown(&status(vec![jobs]), 80);
        assert!(text.starts_with("jobs   0/2 ready   closed   opens in 1h 30m"), "{text}");
        let mut open = broker("jobs", vec![worker(0, 5)]);
        open.next_change_at = Some("2026-11-24T08:00:40Z".into());
        let text = shown(&status(vec![open]), 80);
        assert!(text.starts_with("jobs   1/1 ready   closes in 40s"), "{text}");
    }

    #[test]
    fn colour_changes_no_width() {
        let status = mixed();
        let brokers: Vec<&Broker> = status.brokers.iter().collect();
        let now = "2026-11-24T08:00:00Z".parse().unwrap();
        let colored = render(&status, &brokers, Look { color: true, ..PLAIN }, now).join("\n");
        assert!(colored.contains("\u{1b}["));
        let stripped = anstream::adapter::strip_str(&colored).to_string();
        assert_eq!(stripped, shown(&status, 80));
    }
}
