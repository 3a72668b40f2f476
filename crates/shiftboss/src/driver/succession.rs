//! Before and after this process: going on with what another has left, and handing over to another image.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use shiftboss_api as api;
use shiftboss_core::id::{BrokerId, RequestId};
use shiftboss_core::{Adoption, Input};
use shiftboss_link::wire::UNDECIDED;
use tokio::sync::oneshot;

use super::Driver;
#[cfg(debug_assertions)]
use super::perform::panic_if_asked;
use crate::adopt;
use crate::keeper::Inherited;
use crate::keys::Key;
use crate::log::Deaf;
use crate::os::image::ImageWatch;
use crate::os::random::random;
use crate::os::{clock, heirs};
use crate::upgrade::{self, Estate, Note, Upgrade};

/// Who may come after this process.
pub(crate) struct Succession {
    /// The program's file on disk.
    pub(crate) image: PathBuf,
    pub(crate) estate: Estate,
    pub(crate) upgrade: Upgrade,
    /// The keeper's order that the upgrade under way is for, until its image has answered.
    pub(crate) order: Option<u64>,
    /// If it comes without being asked for.
    pub(crate) watch: Option<ImageWatch>,
}

impl Driver {
    /// Goes on where another process ended.
    pub(super) fn adopt(
        &mut self,
        how: Adoption,
        mut inherited: Inherited,
        told: u64,
        events: Vec<api::Event>,
    ) -> std::io::Result<()> {
        let (Some(keeper), Some(recorder)) = (self.chief.keeper(), &mut self.recorder) else { return Ok(()) };
        // It must not be lost in turn.
        recorder.lost().words().for_each(|words| self.log.note(&words));
        self.workers.loss_is_told();
        // What was recorded and not told is told first.
        for event in events.iter().filter(|event| event.seq > told) {
            self.log.event(event);
            if let Some(told) = &mut self.told {
                told.up_to(event.seq);
            }
        }
        #[cfg(debug_assertions)]
        if how == Adoption::Whole {
            events.iter().for_each(panic_if_asked);
        }
        self.feed.adopt(self.core.status(), events, self.core.last_event());
        let roll = self.core.roll();
        let (shells, launches) = (&self.shells, &self.launches);
        adopt::take_workers(&mut self.workers, &roll, &mut inherited, keeper, recorder, shells, launches)?;
        for (broker, shell) in (0..).map(BrokerId).zip(&mut self.shells) {
            shell.sockets.deposit(keeper, broker)?;
        }
        for broker in self.core.shut() {
            if let Some(shell) = self.shells.get_mut(broker.0 as usize) {
                shell.sockets.leave_asked();
            }
        }
        // All of it is ours.
        heirs::expect(false);
        if how == Adoption::Salvage {
            roll.iter().for_each(|present| recorder.begin_ladder(present.worker));
        }
        self.attend_to_all_lanes();
        let now = clock::now();
        self.starts.expect_joins(now);
        let effects = self.core.adopt(now, how);
        let deadline = self.core.deadline();
        self.trace(|trace| trace.adopt(now, how, &effects, deadline));
        let events = self.record(&effects);
        if let Some(recorder) = &self.recorder {
            let still = adopt::still_to_do(effects, &roll, &self.workers, recorder);
            if let Some(keeper) = self.chief.keeper() {
                for (worker, number, signal) in still.signals {
                    keeper.signal(worker, number, signal)?;
                }
            }
            self.inputs.extend(still.known);
            self.perform(still.effects, events);
        }
        self.inputs.extend(self.workers.said_ready().map(|worker| Input::Ready { worker }));
        // A worker may have shut them meanwhile; opened again they are as they should be.
        for broker in self.core.listening() {
            let mended = self.mend_listeners(broker, true);
            if let Some(shell) = self.shells.get_mut(broker.0 as usize) {
                if let Err(failure) = shell.sockets.open().and(mended) {
                    self.log.note(&format!("{}: {}: {}", shell.name, failure.address, failure.reason));
                }
                self.workers.watch_listeners(broker, &shell.sockets);
            }
        }
        for (key, status) in std::mem::take(&mut inherited.exits) {
            self.take_exit(key, status);
        }
        self.tell_of_asked();
        self.take_turns_again();
        self.say_what_is_owed();
        self.workers.look_at_peers(&mut self.inputs);
        self.hear_fate(inherited.fate.unwrap_or(UNDECIDED));
        self.look_at_image();
        Ok(())
    }

    /// How an upgrade went, which is said once, by whoever hears of it first.
    pub(super) fn hear_fate(&mut self, fate: u64) {
        let Some((words, note)) = self.succession.upgrade.ended(fate) else { return };
        self.log.note(&words);
        if let Some(keeper) = self.chief.keeper() {
            // If it cannot be held, a successor says it again.
            let _ = note.sealed().and_then(|note| keeper.deposit(Key::Upgrade, &[note.as_fd()], 0));
        }
        self.look_at_image();
    }

    pub(super) fn look_at_image(&mut self) {
        let Succession { watch: Some(watch), upgrade, .. } = &mut self.succession else { return };
        watch.take();
        // What happens during an upgrade is looked at after it.
        if !upgrade.is_under_way() && watch.has_changed() {
            self.log.note("upgrade: the program on disk has changed");
            self.upgrade(RequestId(random()), false, oneshot::channel().0);
        }
    }

    pub(super) fn upgrade(&mut self, request: RequestId, only: bool, reply: oneshot::Sender<api::Outcome>) {
        let Some(reply) = self.succession.upgrade.ask(request, reply) else { return };
        let refused = if self.recorder.is_none() {
            Some("it runs without a keeper, which an upgrade needs")
        } else if self.core.status().stopping {
            Some("the app is stopping")
        } else {
            None
        };
        if let Some(reason) = refused {
            if reply.send(upgrade::refused(reason)).is_err() {
                // Nobody asked by a command, so nobody else is told.
                self.log.note(&format!("upgrade: refused: {reason}"));
            }
            return;
        }
        let Some(recorder) = &self.recorder else { return };
        let (say, answer) = oneshot::channel();
        let image = self.succession.image.clone();
        match adopt::to_read(&self.succession.estate, recorder, &self.shells) {
            Ok(estate) => {
                // Nobody waits for it once the app ends.
                let ask = move || drop(say.send(upgrade::check(&image, &estate)));
                drop(std::thread::Builder::new().name("upgrade".to_owned()).spawn(ask));
            }
            Err(error) => drop(say.send(Err(format!("nothing can be handed over: {error}")))),
        }
        self.succession.upgrade.begin(request, only, Some(reply), answer);
    }

    /// The last thing that this process does, unless it fails.
    pub(super) fn hand_over(&mut self, request: RequestId, image: &OwnedFd) -> std::io::Result<()> {
        let Some(keeper) = self.chief.keeper() else { return Ok(()) };
        let note = Note::new(request, image).sealed();
        let handed = note.and_then(|note| keeper.yield_to(image.as_fd(), note.as_fd()));
        if let Err(error) = handed {
            let words =
                self.succession.upgrade.fail(request, format!("the keeper does not take it: {error}"));
            self.log.note(&words);
            return Ok(());
        }
        self.workers.leave_output(&mut *self.log);
        self.flush_log();
        // Its last lines are written; nothing else is given up, all of it is the successor's.
        self.log = Box::new(Deaf);
        std::process::exit(0)
    }
}
