//! Hooks are asked before a worker counts as ready.

use std::sync::Arc;

use shiftboss_core::Input;
use shiftboss_core::id::WorkerId;
use shiftboss_core::status::WorkerState;

use super::Driver;
use crate::extend::{Hooks, WorkerInfo};
use crate::handle::Order;

impl Driver {
    /// Whether somebody is to be asked before this is told to core; then it is told later.
    pub(super) fn is_checked_first(&mut self, input: &Input) -> bool {
        match input {
            Input::Ready { worker } => {
                if self.checks.passed.remove(&worker.0) || !self.ask_hooks(*worker) {
                    self.checks.told.push(*worker);
                    return false;
                }
                self.workers.keep_ready(*worker);
                true
            }
            Input::Exited { worker, .. } => {
                self.checks.held.remove(&worker.0);
                self.checks.asked.remove(&worker.0);
                self.checks.passed.remove(&worker.0);
                false
            }
            _ => false,
        }
    }

    /// Hooks have said what they think of a worker.
    pub(super) fn is_checked(&mut self, worker: WorkerId, result: Result<(), String>) {
        if !self.checks.asked.remove(&worker.0) || !self.workers.has(worker) {
            return;
        }
        match result {
            Ok(()) => {
                self.checks.passed.insert(worker.0);
                self.inputs.push_back(Input::Ready { worker });
            }
            Err(reason) => {
                let name = self.workers.broker_of(worker).unwrap_or_default();
                self.log.note(&format!("{name}: worker {} is refused by a hook: {reason}", worker.0));
                self.inputs.push_back(Input::Refused { worker });
            }
        }
    }

    fn ask_hooks(&mut self, worker: WorkerId) -> bool {
        let Some((broker, slot, pid)) = self.workers.place_of(worker) else { return false };
        let Some(shell) = self.shells.get(broker.0 as usize) else { return false };
        let hooks = shell.extensions.hooks.clone();
        if hooks.is_none() && !shell.awaits_extensions {
            return false;
        }
        let status = self.core.status();
        let workers = status.brokers.get(broker.0 as usize).map(|status| &status.workers);
        // One that serves has passed.
        let state = workers.and_then(|workers| workers.get(&worker)).map(|worker| worker.state);
        if state != Some(WorkerState::Starting) {
            return false;
        }
        let Some(hooks) = hooks else {
            self.checks.held.insert(worker.0);
            return true;
        };
        // Said again: it is being asked for.
        if !self.checks.asked.insert(worker.0) {
            return true;
        }
        let info = |id: WorkerId, slot, pid| WorkerInfo {
            worker_type: shell.name.to_string(),
            id: id.to_string(),
            slot: Some(slot),
            pid,
        };
        let new = info(worker, slot, pid);
        let old = workers.and_then(|workers| {
            let serves = |(id, one): &(&WorkerId, &shiftboss_core::status::WorkerStatus)| {
                one.slot.map(|slot| slot.0) == Some(slot) && **id != worker && one.state == WorkerState::Ready
            };
            workers.iter().find(serves).map(|(id, one)| info(*id, slot, one.pid.0))
        });
        let orders = self.own_orders.clone();
        let ask = move || {
            let result = check(&hooks, old.as_ref(), &new);
            // An app that has ended needs no answer.
            let _ = orders.blocking_send(Order::Checked { worker, result });
        };
        if std::thread::Builder::new().name("shiftboss-hooks".to_owned()).spawn(ask).is_err() {
            self.checks.asked.remove(&worker.0);
            self.inputs.push_back(Input::Refused { worker });
        }
        true
    }
}

fn check(hooks: &Arc<dyn Hooks>, old: Option<&WorkerInfo>, new: &WorkerInfo) -> Result<(), String> {
    let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        hooks.after_ready(new)?;
        old.map_or(Ok(()), |old| hooks.before_retire(old, new))
    }));
    asked.unwrap_or_else(|_| Err("it has panicked".to_owned()))
}
