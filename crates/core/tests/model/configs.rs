//! The small apps that are explored, and how much may go wrong in each.

use std::time::Duration;

use shiftboss_core::spec::{Drained, Ready};

use crate::asks::Ask;

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) workers: u32,
    pub(crate) surge: u32,
    pub(crate) unavailable: u32,
    /// Successors are on trial before they serve (`min_ready`).
    pub(crate) trial: bool,
    pub(crate) listens: bool,
    pub(crate) drained: Drained,
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
            asks: SMALL.to_vec(),
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
        Config { workers: 1, budget: few(1, 2, 1), asks: SMALL.to_vec(), ..base("one, odd") },
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
        Config { ready: Ready::Accepting, budget: few(1, 1, 1), ..base("two, accepting") },
        Config { healthy_at_once: true, budget: few(2, 1, 0), ..base("two, healthy at once") },
        Config { rungs: 2, budget: few(1, 1, 1), ..base("two, two rungs") },
        Config { rungs: 0, budget: few(1, 1, 0), ..base("two, killed at once") },
    ]
}

/// What takes minutes: everything within the bounds of the model.
pub(crate) fn full() -> Vec<Config> {
    let all = Budget { deaths: 2, commands: 2, odd: 1, listen_errors: 1, spawn_errors: 1 };
    let bare = Budget { odd: 0, listen_errors: 0, spawn_errors: 0, ..all };
    let once = Budget { commands: 1, ..all };
    let mut configs = quick();
    for workers in [1, 2] {
        for (surge, unavailable) in [(1, 0), (0, 1)] {
            for trial in [false, true] {
                for listens in [false, true] {
                    let name = format!(
                        "{workers}, surge {surge}{}{}",
                        if trial { ", trial" } else { "" },
                        if listens { ", listen" } else { "" },
                    );
                    let config = Config {
                        workers,
                        surge,
                        unavailable,
                        trial,
                        listens,
                        asks: EVERY.to_vec(),
                        ..base("")
                    };
                    let named = |what: &str, budget| Config {
                        name: format!("{name}{what}"),
                        budget,
                        ..config.clone()
                    };
                    if workers == 1 {
                        configs.push(named(", all", all));
                    } else {
                        configs.push(named(", 2 commands, 2 deaths", bare));
                        configs.push(named(", 1 command", once));
                    }
                    configs.push(Config { cuts: true, ..named(", taken over", Budget { odd: 0, ..once }) });
                }
            }
        }
    }
    configs.push(Config { budget: all, asks: EVERY.to_vec(), ..base("2, surge 1, all") });
    configs
}

fn base(name: &str) -> Config {
    Config {
        name: name.to_owned(),
        workers: 2,
        surge: 1,
        unavailable: 0,
        trial: false,
        listens: false,
        drained: Drained::Refuse,
        ready: Ready::Notify,
        healthy_at_once: false,
        rungs: 1,
        cuts: false,
        idle_words: false,
        budget: Budget::default(),
        asks: EVERY.to_vec(),
    }
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
const SMALL: [Ask; 9] = [
    Ask::Recycle,
    Ask::Drain,
    Ask::Resume,
    Ask::Scale(0),
    Ask::Scale(1),
    Ask::Good,
    Ask::Bad,
    Ask::Stop,
    Ask::StopNow,
];
/// What meets each other in the most ways.
const MEETING: [Ask; 7] =
    [Ask::Recycle, Ask::Drain, Ask::Resume, Ask::Scale(1), Ask::Good, Ask::Bad, Ask::Stop];
