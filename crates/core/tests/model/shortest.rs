//! The shortest way to a broken promise: the same search again, to a depth that grows step by step.

use std::fmt::Write as _;
use std::time::Duration;

use crate::configs::Config;
use crate::happening::Happening;
use crate::search::Fault;
use crate::seen::Seen;
use crate::stats::Stats;
use crate::world::{Failure, World};

/// The fault in readable lines, by the shortest way that can be found in a minute.
pub(crate) fn told(config: &Config, fault: Fault) -> String {
    let found = fault.path.len();
    let (path, broken) = shorter(config, &fault).unwrap_or((fault.path, fault.broken));
    let mut text = format!("{config:?}\nafter {} happenings (first found after {found}):\n", path.len());
    for (number, happening) in (1..).zip(&path) {
        let _ = writeln!(text, "{number:4}  {happening}");
    }
    for broken in broken {
        let _ = writeln!(text, "broken: {broken}");
    }
    text
}

type Way = (Vec<Happening>, Failure);

fn shorter(config: &Config, fault: &Fault) -> Option<Way> {
    let wanted = fault.broken.first()?.invariant;
    if wanted == "L5" {
        return None;
    }
    let begun = crate::now();
    for depth in 1..fault.path.len() {
        let mut search = Search { wanted, path: Vec::new(), seen: Seen::default(), begun };
        let world = World::begin(config, &mut Stats::default()).ok()?;
        if let Some(broken) = search.within(&world, depth) {
            return Some((search.path, broken));
        }
        if begun.elapsed() > PATIENCE {
            return None;
        }
    }
    None
}

struct Search {
    wanted: &'static str,
    path: Vec<Happening>,
    /// How much depth was left when a state was explored last.
    seen: Seen,
    begun: std::time::Instant,
}

impl Search {
    fn within(&mut self, world: &World<'_>, depth: usize) -> Option<Failure> {
        let key = world.key();
        let left = u32::try_from(depth).unwrap_or(u32::MAX);
        if self.seen.get(&key).is_some_and(|before| *before >= left) || self.begun.elapsed() > PATIENCE {
            return None;
        }
        self.seen.insert(key, left);
        let choices = world.choices();
        if !choices.iter().any(|choice| choice.must())
            && let Err(broken) = world.clone().rests(&mut Stats::default())
            && self.is_wanted(&broken)
        {
            return Some(broken);
        }
        if depth == 0 {
            return None;
        }
        for happening in choices {
            let mut next = world.clone();
            self.path.push(happening);
            let found = match next.happens(happening, &mut Stats::default()) {
                Ok(()) => self.within(&next, depth - 1),
                Err(broken) => Some(broken).filter(|broken| self.is_wanted(broken)),
            };
            if found.is_some() {
                return found;
            }
            self.path.pop();
        }
        None
    }

    fn is_wanted(&self, broken: &Failure) -> bool {
        broken.iter().any(|broken| broken.invariant == self.wanted)
    }
}

const PATIENCE: Duration = Duration::from_secs(60);
