//! What a seed draws: the brokers of its app and the faults that are switched on. Swarm style: every seed leaves
//! whole kinds of fault out, so that the others are seen alone too.

use std::time::Duration;

use shiftboss_core::id::LaunchId;
use shiftboss_core::spec::{BackoffSpec, BrokerSpec, Drained, Ready, RecycleSpec, Rung, Signal, StopLadder};

use crate::rng::Rng;

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) specs: Vec<BrokerSpec>,
    pub(crate) faults: Faults,
    /// Length of the phase with faults.
    pub(crate) steps: u32,
    /// Whether faults stop before the app does.
    pub(crate) heals: bool,
}

/// Chance of each fault where it can occur; 0 = switched off.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) spawn_fails: f64,
    pub(crate) spawn_slow: f64,
    pub(crate) never_ready: f64,
    pub(crate) dies_at_start: f64,
    pub(crate) exits_zero: f64,
    pub(crate) crashes: f64,
    pub(crate) ignores_signals: f64,
    pub(crate) stops_slowly: f64,
    pub(crate) listen_fails: f64,
    pub(crate) listen_slow: f64,
    pub(crate) late_ticks: f64,
    pub(crate) early_ticks: f64,
    pub(crate) time_goes_back: f64,
    pub(crate) stale_inputs: f64,
    pub(crate) repeats: f64,
    pub(crate) commands: f64,
    /// More commands at once than may wait.
    pub(crate) floods: f64,
    pub(crate) bad_versions: f64,
    /// Workers of the first broker die as soon as they run.
    pub(crate) storm: f64,
    /// All processes die at one moment, though they have proved themselves.
    pub(crate) massacres: f64,
    /// Another process goes on with the app's records.
    pub(crate) takeovers: f64,
    /// Workers that speak on their channels, and may stop doing so, or talk nonsense.
    pub(crate) channels: f64,
    /// Another broker joins.
    pub(crate) joins: f64,
    /// Windows begin and end, at any moment.
    pub(crate) windows: f64,
    /// Files change.
    pub(crate) changes: f64,
    /// Workers ask for listeners, and no longer.
    pub(crate) binds: f64,
}

impl Faults {
    /// Every one of them.
    pub(crate) fn all(&mut self) -> [&mut f64; 26] {
        [
            &mut self.spawn_fails,
            &mut self.spawn_slow,
            &mut self.never_ready,
            &mut self.dies_at_start,
            &mut self.exits_zero,
            &mut self.crashes,
            &mut self.ignores_signals,
            &mut self.stops_slowly,
            &mut self.listen_fails,
            &mut self.listen_slow,
            &mut self.late_ticks,
            &mut self.early_ticks,
            &mut self.time_goes_back,
            &mut self.stale_inputs,
            &mut self.repeats,
            &mut self.commands,
            &mut self.floods,
            &mut self.bad_versions,
            &mut self.storm,
            &mut self.massacres,
            &mut self.takeovers,
            &mut self.channels,
            &mut self.joins,
            &mut self.windows,
            &mut self.changes,
            &mut self.binds,
        ]
    }
}

impl Options {
    pub(crate) fn draw(rng: &mut Rng) -> Options {
        let brokers = rng.between(1, 3) as u32;
        let every = rng.chance(0.2);
        let storm = rng.chance(0.05);
        let mut specs: Vec<BrokerSpec> = (0..brokers).map(|launch| draw_spec(rng, launch, every)).collect();
        if storm && let Some(first) = specs.first_mut() {
            first.workers = rng.between(8, 32) as u32;
            first.backoff.base = millis(rng, 1, 10);
            first.backoff.cap = millis(rng, 10, 50);
        }
        let massacre = !storm && rng.chance(0.06);
        if massacre {
            for spec in &mut specs {
                spec.workers = rng.between(8, 24) as u32;
                spec.backoff.healthy_after = millis(rng, 1, 20);
            }
        }
        Options {
            specs,
            faults: Faults {
                spawn_fails: rate(rng),
                spawn_slow: rate(rng),
                never_ready: rate(rng),
                dies_at_start: rate(rng),
                exits_zero: rate(rng),
                crashes: if storm { 0.4 } else { rate(rng) },
                ignores_signals: rate(rng),
                stops_slowly: rate(rng),
                listen_fails: rate(rng),
                listen_slow: rate(rng),
                late_ticks: rate(rng) / 4.0,
                early_ticks: rate(rng),
                time_goes_back: rate(rng) / 4.0,
                stale_inputs: rate(rng),
                repeats: rate(rng),
                commands: if storm && rng.chance(0.7) { 0.2 } else { rng.pick(&[0.0, 0.01, 0.05, 0.2]) },
                floods: rng.pick(&[0.0, 0.0, 0.0, 0.0005]),
                bad_versions: rng.pick(&[0.0, 0.5]),
                storm: if storm { 0.9 } else { 0.0 },
                massacres: if massacre { 0.05 } else { 0.0 },
                takeovers: rng.pick(&[0.0, 0.0, 0.0, 0.02]),
                channels: rng.pick(&[0.0, 0.3, 1.0]),
                joins: rng.pick(&[0.0, 0.0, 0.0, 0.002]),
                windows: rng.pick(&[0.2, 0.9, 1.0]),
                changes: rng.pick(&[0.0, 0.01, 0.05]),
                binds: rng.pick(&[0.0, 0.0, 0.01, 0.05]),
            },
            steps: match rng.chance(0.02) {
                true => 12_000,
                false if storm || massacre => 4_000,
                false => rng.between(200, 1200) as u32,
            },
            heals: rng.chance(0.6),
        }
    }
}

/// Another specification of the same broker.
pub(crate) fn redraw(rng: &mut Rng, spec: &BrokerSpec, launch: LaunchId) -> BrokerSpec {
    let fresh = draw_spec(rng, launch.0, spec.recycle.every.is_some());
    let workers = if rng.chance(0.7) { spec.workers } else { fresh.workers };
    let BrokerSpec { name, listens, drained, scheduled, watch, .. } = spec.clone();
    BrokerSpec { name, listens, drained, scheduled, watch, workers, ..fresh }
}

pub(crate) fn draw_spec(rng: &mut Rng, launch: u32, every: bool) -> BrokerSpec {
    let surge = rng.pick(&[0, 1, 1, 1, 2, 3]);
    let unavailable = if surge == 0 { rng.pick(&[1, 2]) } else { rng.pick(&[0, 0, 1]) };
    let length = rng.below(4) as usize;
    let signals = [Signal::INT, Signal::TERM, Signal::QUIT];
    let mut rungs: Vec<Rung> =
        signals[..length].iter().map(|signal| Rung::signal(*signal, millis(rng, 100, 3000))).collect();
    if rng.chance(0.5) {
        rungs.insert(rng.below(1 + length as u64) as usize, Rung::notice(millis(rng, 100, 3000)));
    }
    let stop = StopLadder(rungs);
    BrokerSpec {
        name: format!("b{launch}"),
        workers: rng.pick(&[1, 1, 2, 3, 4, 8]),
        launch: LaunchId(launch),
        listens: rng.chance(0.5),
        ready: match rng.below(10) {
            0..=3 => Ready::Notify,
            4 => Ready::Listening,
            5 | 6 => Ready::Accepting,
            _ => Ready::After(millis(rng, 0, 1000)),
        },
        recycle: RecycleSpec {
            every: every.then(|| millis(rng, 5_000, 60_000)),
            jitter: 0.1,
            surge,
            unavailable,
            min_ready: if rng.chance(0.4) { millis(rng, 1, 2000) } else { Duration::ZERO },
            deadline: millis(rng, 1_000, 5_000),
        },
        stop,
        backoff: BackoffSpec {
            base: millis(rng, 10, 200),
            cap: millis(rng, 500, 3000),
            healthy_after: millis(rng, 100, 3000),
        },
        drained: if rng.chance(0.7) { Drained::Refuse } else { Drained::Hold },
        scheduled: rng.chance(0.15),
        watch: if rng.chance(0.3) { Some(millis(rng, 1, 1000)) } else { None },
        standby: rng.pick(&[0, 0, 1, 2]),
    }
}

fn rate(rng: &mut Rng) -> f64 {
    rng.pick(&[0.0, 0.0, 0.03, 0.15, 0.4])
}

pub(crate) fn millis(rng: &mut Rng, low: u64, high: u64) -> Duration {
    Duration::from_millis(rng.between(low, high))
}
