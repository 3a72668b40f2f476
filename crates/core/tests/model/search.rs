//! Explores every state that can be reached, depth first, and finds the circles on the way (Tarjan's strongly connected
//! components). A circle that something leaves which must happen sooner or later, because it could all the time, is no
//! harm; any other goes round for ever (L5).

use shiftboss_oracle::Broken;

use crate::choices::Label;
use crate::circle::{Node, goes_on_for_ever};
use crate::configs::Config;
use crate::happening::Happening;
use crate::seen::{OPEN, Seen};
use crate::stats::Stats;
use crate::world::{Failure, World};

/// A broken promise, and the way to it.
pub(crate) struct Fault {
    pub(crate) broken: Failure,
    pub(crate) path: Vec<Happening>,
    pub(crate) states: u64,
}

/// A state whose successors are being explored.
struct Frame<'a> {
    world: Box<World<'a>>,
    /// Its place among the open ones.
    at: u32,
    /// The first open one to which some way on leads back.
    low: u32,
    choices: Vec<Happening>,
    next: usize,
    /// The longest way on found so far.
    ahead: u32,
}

struct Search<'a> {
    stats: Stats,
    seen: Seen,
    stack: Vec<Frame<'a>>,
    /// States of which it is not known yet whether they lie on a circle, in the order of discovery.
    open: Vec<Node>,
}

pub(crate) fn explore(config: &Config) -> Result<Stats, Box<Fault>> {
    let mut search =
        Search { stats: Stats::default(), seen: Seen::default(), stack: Vec::new(), open: Vec::new() };
    match search.run(config) {
        Ok(()) => Ok(search.stats),
        Err(broken) => {
            let taken = |frame: &Frame<'_>| frame.choices.get(frame.next.checked_sub(1)?).copied();
            let path = search.stack.iter().filter_map(taken).collect();
            Err(Box::new(Fault { broken, path, states: search.stats.states }))
        }
    }
}

impl<'a> Search<'a> {
    fn run(&mut self, config: &'a Config) -> Result<(), Failure> {
        let world = World::begin(config, &mut self.stats)?;
        self.enter(Box::new(world), None)?;
        while let Some(frame) = self.stack.last_mut() {
            let Some(happening) = frame.choices.get(frame.next).copied() else {
                self.leave()?;
                continue;
            };
            frame.next += 1;
            let label = frame.world.label(happening);
            let mut world = frame.world.clone();
            self.stats.transitions += 1;
            world.happens(happening, &mut self.stats)?;
            self.enter(world, Some(label))?;
        }
        Ok(())
    }

    /// A state is reached, by a happening of the last one on the stack.
    fn enter(&mut self, mut world: Box<World<'a>>, by: Option<Label>) -> Result<(), Failure> {
        let key = world.key();
        let known = self.seen.get(&key).copied();
        let at = match known {
            Some(known) if known & OPEN == 0 => {
                self.stack
                    .iter_mut()
                    .last()
                    .into_iter()
                    .for_each(|frame| frame.ahead = frame.ahead.max(known + 1));
                return Ok(());
            }
            Some(known) => known & !OPEN,
            None => u32::try_from(self.open.len()).unwrap_or(OPEN - 1),
        };
        if let Some((frame, by)) = self.stack.last_mut().zip(by) {
            self.open[frame.at as usize].ways.push((by, at));
            frame.low = frame.low.min(at);
        }
        if known.is_some() {
            return Ok(());
        }
        self.seen.insert(key, at | OPEN);
        self.stats.states += 1;
        if world.config.idle_words {
            world.hears_idle_words(&mut self.stats)?;
        }
        let choices = world.choices();
        let must: Vec<Label> =
            choices.iter().filter(|choice| choice.must()).map(|choice| world.label(*choice)).collect();
        if must.is_empty() {
            self.stats.at_rest += 1;
            world.rests(&mut self.stats)?;
        }
        self.open.push(Node { key, must, ways: Vec::new() });
        self.stack.push(Frame { world, at, low: at, choices, next: 0, ahead: 0 });
        Ok(())
    }

    /// All that can follow the last state is explored.
    fn leave(&mut self) -> Result<(), Failure> {
        let Some(Frame { at, low, ahead, .. }) = self.stack.pop() else { return Ok(()) };
        self.stats.longest = self.stats.longest.max(u64::from(ahead));
        if let Some(before) = self.stack.last_mut() {
            before.ahead = before.ahead.max(ahead + 1);
            if low < at {
                before.low = before.low.min(low);
            }
        }
        if low < at {
            return Ok(());
        }
        let component = self.open.split_off(at as usize);
        for node in &component {
            self.seen.insert(node.key, ahead);
        }
        if component.len() > 1 || !component[0].ways.is_empty() {
            self.stats.circles += 1;
            if let Some(what) = goes_on_for_ever(&component, at) {
                return Err(vec![Broken { invariant: "L5", what }]);
            }
        }
        if let Some(before) = self.stack.last() {
            // The way to it leads out of every circle.
            self.open[before.at as usize].ways.pop();
        }
        Ok(())
    }
}
