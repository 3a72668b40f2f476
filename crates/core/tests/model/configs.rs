//! The small apps that are explored, and how much may go wrong in each.

use std::time::Duration;

use shiftboss_core::spec::{Drained, Ready};

use crate::asks::Ask;

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) workers: u32,
    pub(crate) standby: u32,
    pub(crate) surge: u32,
    pub(crate) unavailable: u32,
    /// Successors are on trial before they serve (`min_ready`).
    pub(crate) trial: bool,
    pub(crate) listens: bool,
    pub(crate) drained: Drained,
    pub(crate) scheduled: bool,
    pub(crate) ready: Ready,
    /// Every worker that was ready has proved itself; otherwise one has when its deadline for that has come.
    pub(crate) healthy_at_once: bool,
    /// Rungs that ask before the kill.
    pub(crate) rungs: usize,
    /// Every state is left twice: by the app that was stepped, and by one restored from its records.
    pub(crate) cuts: bool,
    /// In every state words are said that must change nothing.
    pub(crate) idle_words: bool,
    pub(crate) budget: Budget,
    pub(crate) asks: Vec<Ask>,
}

/// What may still go wrong, or be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    /// Exits that nobody asked for.
    pub(crate) deaths: u8,
    pub(crate) commands: u8,
    pub(crate) spawn_errors: u8,
    pub(crate) listen_errors: u8,
    /// Workers that, of a good version, do not become ready in time, or do not leave when asked to, or both.
    pub(crate) odd: u8,
}

/// What every test run explores, in a few seconds.
pub(crate) fn quick() -> Vec<Config> {
    let few = |deaths, commands, odd| Budget { deaths, commands, odd, listen_errors: 1, spawn_errors: 0 };
    vec![
        Config {
            workers: 1,
            listens: true,
            idle_words: true,
            budget: few(1, 2, 0),
            asks: ALONE.to_vec(),
            ..base("one, listens")
        },
        Config {
            workers: 1,
            listens: true,
            ready: Ready::Accepting,
            budget: Budget { spawn_errors: 1, listen_errors: 2, ..few(0, 3, 1) },
            asks: vec![Ask::Drain, Ask::Resume],
            ..base("one, accepting, to and fro")
        },
        Config { workers: 1, budget: few(1, 2, 1), asks: ALONE.to_vec(), ..base("one, odd") },
        Config { workers: 1, budget: few(0, 3, 0), asks: ASKED.to_vec(), ..base("one, asked three times") },
        Config { listens: true, cuts: true, budget: few(0, 3, 0), ..part_time("one, part-time") },
        Config {
            listens: true,
            budget: Budget { listen_errors: 0, ..few(0, 4, 0) },
            asks: vec![Ask::Begins, Ask::Ends, Ask::Drain],
            ..part_time("one, part-time, to and fro")
        },
        Config { budget: few(1, 3, 1), ..part_time("one, part-time, odd") },
        Config { budget: few(0, 2, 0), ..base("two") },
        Config { budget: few(1, 2, 0), asks: MEETING.to_vec(), ..base("two, one dies") },
        Config { listens: true, cuts: true, budget: few(1, 1, 0), ..base("two, listen, taken over") },
        Config { listens: true, drained: Drained::Hold, budget: few(0, 1, 1), ..base("two, listen, hold") },
        Config { budget: Budget { spawn_errors: 1, ..few(1, 1, 0) }, ..base("two, one cannot be started") },
        Config { trial: true, budget: few(1, 1, 1), ..base("two, on trial") },
        Config {
            surge: 0,
            unavailable: 1,
            idle_words: true,
            budget: few(1, 1, 0),
            ..base("two, unavailable 1")
        },
        Config {
            surge: 0,
            unavailable: 1,
            trial: true,
            cuts: true,
            budget: few(1, 1, 0),
            ..base("two, unavailable 1, trial")
        },
        Config { ready: Ready::After(Duration::ZERO), budget: few(1, 1, 0), ..base("two, ready by time") },
        Config { ready: Ready::Accepting, budget: few(0, 1, 1), ..base("two, accepting") },
        Config { healthy_at_once: true, budget: few(2, 1, 0), ..base("two, healthy at once") },
        Config { rungs: 2, budget: few(0, 1, 1), ..base("two, two rungs") },
        Config { rungs: 0, budget: few(1, 1, 0), ..base("two, killed at once") },
        Config { cuts: true, idle_words: true, budget: few(1, 1, 0), ..one_and("one, standby") },
        Config {
            budget: few(2, 1, 0),
            asks: vec![Ask::Recycle, Ask::Bad],
            ..one_and("one, standby, deaths")
        },
        Config {
            trial: true,
            budget: few(1, 1, 1),
            asks: LEADING.to_vec(),
            ..one_and("one, standby, trial, odd")
        },
        Config { surge: 0, unavailable: 1, budget: few(1, 1, 0), ..one_and("one, standby, unavailable 1") },
        Config {
            budget: Budget { spawn_errors: 1, ..few(0, 2, 0) },
            asks: LEADING.to_vec(),
            ..one_and("one, standby, two commands")
        },
    ]
}

/// What takes minutes: all that may happen to one worker; to two, either everything that may go wrong and one command,
/// or two deaths and two commands, and once a spawn that fails and a takeover in every state besides.
pub(crate) fn full() -> Vec<Config> {
    let all = Budget { deaths: 2, commands: 2, odd: 1, listen_errors: 1, spawn_errors: 1 };
    let twice = Budget { odd: 0, listen_errors: 0, spawn_errors: 0, ..all };
    let once = Budget { commands: 1, ..all };
    let mut configs = quick();
    for (name, listens, trial, (surge, unavailable)) in shapes() {
        let of = |workers, what: &str, budget| Config {
            workers,
            listens,
            trial,
            surge,
            unavailable,
            budget,
            ..base(&format!("{name}: {what}"))
        };
        configs.push(Config { asks: ALONE.to_vec(), ..of(1, "one, all", all) });
        configs.push(of(2, "two, all faults", once));
        configs.push(of(2, "two, two commands", twice));
        let over = Budget { odd: 0, ..once };
        configs.push(Config { cuts: true, idle_words: true, ..of(2, "two, taken over", over) });
    }
    configs.push(Config { workers: 1, budget: twice, ..base("one that may become two") });
    configs.push(Config { standby: 1, budget: once, ..base("two, standby") });
    configs.push(Config { cuts: true, budget: twice, ..one_and("one, standby, two commands, taken over") });
    configs.push(Config {
        cuts: true,
        budget: Budget { spawn_errors: 1, ..twice },
        ..base("two, all at once")
    });
    configs
}

/// Every way to recycle, with and without listeners.
fn shapes() -> impl Iterator<Item = (String, bool, bool, (u32, u32))> {
    let limits = [("surge", (1, 0)), ("unavailable", (0, 1))];
    limits.into_iter().flat_map(|(name, limit)| {
        [(false, false), (false, true), (true, false), (true, true)].map(|(listens, trial)| {
            let listen = if listens { ", listen" } else { "" };
            let on_trial = if trial { ", trial" } else { "" };
            (format!("{name}{listen}{on_trial}"), listens, trial, limit)
        })
    })
}

fn base(name: &str) -> Config {
    Config {
        name: name.to_owned(),
        workers: 2,
        standby: 0,
        surge: 1,
        unavailable: 0,
        trial: false,
        listens: false,
        drained: Drained::Refuse,
        scheduled: false,
        ready: Ready::Notify,
        healthy_at_once: false,
        rungs: 1,
        cuts: false,
        idle_words: false,
        budget: Budget::default(),
        asks: EVERY.to_vec(),
    }
}

/// One worker and one standby.
fn one_and(name: &str) -> Config {
    Config { workers: 1, standby: 1, asks: ALONE.to_vec(), ..base(name) }
}

/// One worker, of a broker with a schedule.
fn part_time(name: &str) -> Config {
    Config { workers: 1, scheduled: true, asks: CLOCK.to_vec(), ..base(name) }
}

/// All that may be asked.
const EVERY: [Ask; 12] = [
    Ask::Recycle,
    Ask::RecycleSlot(0),
    Ask::Drain,
    Ask::Resume,
    Ask::Scale(0),
    Ask::Scale(1),
    Ask::Scale(2),
    Ask::Good,
    Ask::Fewer,
    Ask::Bad,
    Ask::Stop,
    Ask::StopNow,
];
/// All that may be asked of one worker that stays alone.
const ALONE: [Ask; 10] = [
    Ask::Recycle,
    Ask::Drain,
    Ask::Resume,
    Ask::Scale(0),
    Ask::Scale(1),
    Ask::Good,
    Ask::Fewer,
    Ask::Bad,
    Ask::Stop,
    Ask::StopNow,
];
/// What of it leads on with a standby.
const LEADING: [Ask; 5] = [Ask::Recycle, Ask::Drain, Ask::Resume, Ask::Good, Ask::Bad];
/// What clock and hands do.
const CLOCK: [Ask; 11] = [
    Ask::Begins,
    Ask::Ends,
    Ask::Drain,
    Ask::Resume,
    Ask::ResumeNow,
    Ask::Recycle,
    Ask::Scale(0),
    Ask::Good,
    Ask::Bad,
    Ask::Stop,
    Ask::StopNow,
];
/// What of it leads on when it is asked three times.
const ASKED: [Ask; 8] =
    [Ask::Recycle, Ask::Drain, Ask::Resume, Ask::Scale(0), Ask::Scale(1), Ask::Good, Ask::Bad, Ask::Stop];
/// What meets each other in the most ways.
const MEETING: [Ask; 7] =
    [Ask::Recycle, Ask::Drain, Ask::Resume, Ask::Scale(1), Ask::Good, Ask::Bad, Ask::Stop];
