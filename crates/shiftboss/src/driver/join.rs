//! A broker joins the running app.

use shiftboss_core::Input;
use shiftboss_core::id::{BrokerId, Generation, LaunchId, WorkerId};

use super::Driver;
use crate::extend::Extensions;
use crate::inheritance::SpecRecord;
use crate::options::BrokerOptions;
use crate::os::kill_points;
use crate::os::random::random;
use crate::os::rlimit;
use crate::run::{RunError, enough_descriptors, os};

impl Driver {
    /// The broker of this type; made of these options if there is none.
    pub(super) fn join(
        &mut self,
        name: &str,
        options: &BrokerOptions,
        extensions: Extensions,
    ) -> Result<BrokerId, RunError> {
        let known = self.names.now();
        let id = BrokerId(u32::try_from(known.len()).unwrap_or(u32::MAX));
        if let Some(at) = known.iter().position(|other| other == name) {
            let id = BrokerId(u32::try_from(at).unwrap_or(u32::MAX));
            // Whoever has joined before may have brought some.
            if extensions.are_some() || self.shells.get(at).is_some_and(|shell| !shell.is_joined) {
                self.extend(id, extensions);
            }
            return Ok(id);
        }
        if self.ended || self.core.status().stopping {
            return Err(RunError::Ending);
        }
        if known.len() >= MOST {
            return Err(RunError::TooMany(MOST));
        }
        let launch = LaunchId(self.launches.keys().next_back().map_or(0, |last| last.0 + 1));
        options.check(name)?;
        let others = self.core.status().brokers.iter().map(|broker| u64::from(broker.wanted)).sum();
        enough_descriptors([options], others, rlimit::open_files_now())?;
        let mut founded = self.founder.found(name, options, launch)?;
        (founded.shell.extensions, founded.shell.is_joined) = (extensions, true);
        self.outside.prepare(&founded.shell, &self.workers).map_err(os("cannot look outside"))?;
        founded.tell(&mut *self.log);
        self.founder.record.brokers.push(name.to_owned());
        if let Some(keeper) = self.chief.keeper() {
            let estate = &mut self.succession.estate;
            let deposited = founded
                .record(options)
                .deposit(keeper, id, Generation(1), estate)
                .and_then(|()| founded.shell.sockets.deposit(keeper, id))
                // Last: a successor looks for all whom it names.
                .and_then(|()| self.founder.record.deposit(keeper, estate));
            if let Err(error) = deposited {
                self.founder.record.brokers.pop();
                return Err(os("the keeper does not take what it has to hold")(error));
            }
            kill_points::point("a broker is about to join");
        }
        self.names.join(name);
        self.launches.insert(launch, founded.launch);
        self.outside.add(id, &founded.shell);
        self.shells.push(founded.shell);
        let seed = u64::try_from(random() & u128::from(u64::MAX)).unwrap_or(0);
        self.inputs.push_back(Input::Begun { spec: Box::new(founded.spec), seed });
        Ok(id)
    }

    /// What waits for extensions of a broker goes on.
    fn extend(&mut self, broker: BrokerId, extensions: Extensions) {
        let Some(shell) = self.shells.get_mut(broker.0 as usize) else { return };
        let extended = extensions.are_some();
        (shell.extensions, shell.awaits_extensions, shell.is_joined) = (extensions, false, true);
        // Those of others wait again.
        let held = std::mem::take(&mut self.checks.held);
        self.inputs.extend(held.into_iter().map(|worker| Input::Ready { worker: WorkerId(worker) }));
        if let Some(keeper) = self.chief.keeper()
            && let Err(error) = SpecRecord::extend(keeper, broker, extended, &mut self.succession.estate)
        {
            self.log.note(&format!("a successor will not know whether there are extensions: {error}"));
        }
    }
}

/// As many as the records have room for.
const MOST: usize = 256;
