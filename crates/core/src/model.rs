//! For whoever explores all states: when two states are the same, and which deadlines could come next.

use crate::app::App;
use crate::broker::{Broker, Phase};
use crate::drain::Step;
use crate::effect::Effect;
use crate::recycle::Stage;
use crate::rng::Rng;
use crate::snapshot;
use crate::worker::State;

impl App {
    /// The records of the whole state without what only counts: events, jitter, turns and orders by their rank.
    #[doc(hidden)]
    #[must_use]
    pub fn identity(&self) -> Vec<u8> {
        let mut app = self.clone();
        app.shared.seq = 0;
        app.shared.budget.rank();
        app.shared.requests.rank();
        for broker in &mut app.brokers {
            broker.rng = Rng::new(0);
            for place in &mut broker.places {
                if let Some(ticket) = &mut place.waits {
                    ticket.number = self.shared.budget.rank_of(*ticket);
                }
            }
        }
        snapshot::written(&app)
    }

    /// How many deadlines are waited for.
    #[doc(hidden)]
    #[must_use]
    pub fn armed(&self) -> usize {
        self.shared.timers.len()
    }

    /// Lets one of them come, by its place in order of time, without moving the clock; none if there is no such one.
    #[doc(hidden)]
    pub fn fire(&mut self, nth: usize) -> Option<Vec<Effect>> {
        let (time, key) = self.shared.timers.iter().nth(nth).copied()?;
        self.due(time, key);
        Some(self.settle())
    }

    /// A word for the state of each broker, worker and slot under way.
    #[doc(hidden)]
    #[must_use]
    pub fn shapes(&self) -> Vec<&'static str> {
        self.brokers.iter().flat_map(Broker::shapes).collect()
    }
}

impl Broker {
    fn shapes(&self) -> impl Iterator<Item = &'static str> + '_ {
        let phase = match self.phase {
            Phase::Waiting { retry_at: None, .. } => "waiting",
            Phase::Waiting { retry_at: Some(_), .. } => "waiting to retry",
            Phase::Open => "open",
            Phase::Draining(Step::Quieting) => "quieting",
            Phase::Draining(Step::Leaving) => "leaving",
            Phase::Draining(Step::Shutting) => "shutting",
            Phase::Drained => "drained",
        };
        let workers = self.workers.values().map(|worker| match worker.state {
            State::Spawning { then_stop: None } => "spawning",
            State::Spawning { then_stop: Some(_) } => "spawning, to be stopped",
            State::Starting { .. } => "starting",
            State::Ready { proven_at: None, .. } => "ready",
            State::Ready { proven_at: Some(_), .. } => "ready, on trial",
            State::Stopping { forced: false, .. } => "stopping",
            State::Stopping { forced: true, .. } => "killed",
        });
        let moves = self.recycle.iter().flat_map(|recycle| recycle.under_way.values());
        let moves = moves.map(|moved| match moved.stage {
            Stage::Retiring(_) => "move: retiring",
            Stage::Queued => "move: queued",
            Stage::Starting(_) => "move: starting",
            Stage::Proving(..) => "move: proving",
            Stage::Leaving(_) => "move: leaving",
        });
        std::iter::once(phase).chain(workers).chain(moves)
    }
}
