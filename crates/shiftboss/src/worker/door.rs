//! The door: where a standby waits, fully started, until it is told its slot.

use std::env;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use shiftboss_channel as channel;
use tokio::sync::watch;

use super::WorkerContext;
use crate::engine::block_on;

/// Where this worker stands.
pub(super) struct Door {
    /// Its slot, once it has one.
    slot: watch::Sender<Option<u32>>,
    /// It was one that had to wait.
    was_standby: bool,
    /// It has said that it waits.
    is_there: AtomicBool,
    /// It has said that it serves, before it was told to.
    is_early: AtomicBool,
}

impl Door {
    /// A standby is told no slot when it is started.
    pub(super) fn from_environment() -> Door {
        let slot = env::var("SHIFTBOSS_SLOT").ok().and_then(|slot| slot.parse().ok());
        Door {
            was_standby: slot.is_none(),
            slot: watch::Sender::new(slot),
            is_there: AtomicBool::new(false),
            is_early: AtomicBool::new(false),
        }
    }
}

impl WorkerContext {
    /// Its slot: a place from 0 that it has from its predecessor. A standby has one once it is promoted, and 0 before.
    #[must_use]
    pub fn slot(&self) -> u32 {
        self.shared.door.slot.borrow().unwrap_or_default()
    }

    /// Whether it has a slot: from its start, or, a standby, from its promotion on.
    #[must_use]
    pub fn is_promoted(&self) -> bool {
        self.shared.door.slot.borrow().is_some()
    }

    /// The door: resolves at once for a worker that was started to serve. A standby says that it is fully started, and waits
    /// here until it is needed; what it does afterwards is what its clients wait for. [`WorkerContext::listener`] goes through
    /// it, and so does a [`Worker`](super::Worker) whose `init` has not.
    ///
    /// # Errors
    /// `Interrupted` if it is to leave instead, and those of [`WorkerContext::send`].
    pub async fn promoted(&self) -> io::Result<()> {
        let door = &self.shared.door;
        let mut slot = door.slot.subscribe();
        if slot.borrow().is_some() {
            return Ok(());
        }
        if !door.is_there.swap(true, Ordering::AcqRel) {
            self.write(&channel::standby())?;
        }
        tokio::select! {
            biased;
            // The sender is in this very context.
            _ = slot.wait_for(Option::is_some) => Ok(()),
            () = self.leaving() => Err(io::Error::new(io::ErrorKind::Interrupted, NOT_NEEDED)),
        }
    }

    /// The same, blocking: not to be called from asynchronous code.
    ///
    /// # Errors
    /// Those of [`WorkerContext::promoted`].
    pub fn wait_until_promoted(&self) -> io::Result<()> {
        block_on(self.promoted())
    }

    /// Resolves when it is to leave and has never been needed.
    pub(super) async fn is_not_needed(&self) {
        self.leaving().await;
        if self.is_promoted() {
            std::future::pending::<()>().await;
        }
    }

    /// It has a slot from now on; told again that changes nothing.
    pub(super) fn take_slot(&self, slot: u32) {
        let door = &self.shared.door;
        let is_new = door.slot.send_if_modified(|known| {
            let is_new = known.is_none();
            known.get_or_insert(slot);
            is_new
        });
        if is_new && door.is_early.load(Ordering::Acquire) {
            // That the channel is closed is heard there.
            let _ = self.write(&channel::ready());
        }
    }

    /// Whether it may say that it serves; a standby says so when it is told to. One that has not been at the door is there
    /// from now on.
    pub(super) fn may_be_ready(&self) -> io::Result<bool> {
        let door = &self.shared.door;
        if !door.was_standby {
            return Ok(true);
        }
        door.is_early.store(true, Ordering::Release);
        if self.is_promoted() {
            return Ok(true);
        }
        if !door.is_there.swap(true, Ordering::AcqRel) {
            self.write(&channel::standby())?;
        }
        Ok(false)
    }
}

const NOT_NEEDED: &str = "this standby is to leave, and was never promoted";
