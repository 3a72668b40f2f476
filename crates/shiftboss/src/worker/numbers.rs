//! How much a worker has in hand, and numbers of its own: told to the broker when they change, a few times a second.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, Once, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::{WorkerContext, lock};
use crate::os::signals;

pub(super) struct Numbers {
    state: Mutex<State>,
    changed: Condvar,
    begun: Once,
}

impl Default for Numbers {
    fn default() -> Self {
        Numbers { state: Mutex::default(), changed: Condvar::new(), begun: Once::new() }
    }
}

#[derive(Clone, Default, Serialize)]
struct State {
    busy: u64,
    counters: BTreeMap<String, u64>,
    #[serde(skip)]
    is_news: bool,
}

/// A piece of work in hand, until it is dropped.
#[derive(Debug)]
pub struct Busy(WorkerContext);

impl WorkerContext {
    /// Says that a piece of work is in hand, until what is returned is dropped. `status` shows how many there are.
    #[must_use = "the work is over as soon as this is dropped"]
    pub fn busy(&self) -> Busy {
        self.change(|state| state.busy += 1);
        Busy(self.clone())
    }

    /// Whether no work is in hand.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        lock(&self.shared.numbers.state).busy == 0
    }

    /// Adds to a number of the program's own, as "requests". `status` shows it.
    pub fn count(&self, name: &str, more: u64) {
        self.change(|state| match state.counters.get_mut(name) {
            Some(counter) => *counter = counter.saturating_add(more),
            None => drop(state.counters.insert(name.to_owned(), more)),
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let numbers = &self.shared.numbers;
        let mut state = lock(&numbers.state);
        change(&mut state);
        if !std::mem::replace(&mut state.is_news, true) {
            numbers.changed.notify_one();
        }
        drop(state);
        numbers.begun.call_once(|| {
            let context = self.clone();
            // Without a thread nobody is told.
            let _ = signals::undisturbed("shiftboss-numbers", move || context.tell());
        });
    }

    /// Tells what has changed, until the channel is closed.
    fn tell(&self) {
        let numbers = &self.shared.numbers;
        loop {
            let state = lock(&numbers.state);
            let no_news = |state: &mut State| !state.is_news;
            let mut state =
                numbers.changed.wait_while(state, no_news).unwrap_or_else(PoisonError::into_inner);
            state.is_news = false;
            let now = state.clone();
            drop(state);
            let told = shiftboss_channel::numbers(&now).map(|line| self.write(&line));
            if !matches!(told, Ok(Ok(()))) {
                return;
            }
            std::thread::sleep(AT_MOST_EVERY);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.change(|state| state.busy = state.busy.saturating_sub(1));
    }
}

const AT_MOST_EVERY: Duration = Duration::from_millis(200);
