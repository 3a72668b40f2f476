//! What a program can put in place of, or between, what a broker does by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use shiftboss_core::id::WorkerId;

/// Extensions of one broker: see [`Broker::start_with`](crate::Broker::start_with).
#[derive(Clone, Default)]
pub struct Extensions {
    pub(crate) hooks: Option<Arc<dyn Hooks>>,
    pub(crate) launcher: Option<Arc<dyn Launcher>>,
}

impl Extensions {
    /// None.
    #[must_use]
    pub fn new() -> Extensions {
        Extensions::default()
    }

    pub(crate) fn are_some(&self) -> bool {
        self.hooks.is_some() || self.launcher.is_some()
    }

    /// These are asked before a worker serves, and before one is retired for it.
    #[must_use]
    pub fn hooks(mut self, hooks: impl Hooks + 'static) -> Extensions {
        self.hooks = Some(Arc::new(hooks));
        self
    }

    /// This has the last word on how a worker is started.
    #[must_use]
    pub fn launcher(mut self, launcher: impl Launcher + 'static) -> Extensions {
        self.launcher = Some(Arc::new(launcher));
        self
    }
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hooks, launcher) = (self.hooks.is_some(), self.launcher.is_some());
        f.debug_struct("Extensions").field("hooks", &hooks).field("launcher", &launcher).finish()
    }
}

/// A worker, as hooks and launchers are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// Its broker.
    pub worker_type: String,
    /// Its id.
    pub id: String,
    /// Its slot; none of a standby.
    pub slot: Option<u32>,
    /// Its process; 0 before it is started.
    pub pid: u32,
}

/// Asked between the moment in which a worker says that it is ready and the one in which it counts as ready, for each
/// worker that says so itself (`ready = "notify"`, as workers of this library do). Each is called on a thread of its own
/// and may take as long as a start may take. An error says why not: then the worker is ended, and counts as a failed start; a
/// recycle that it is the successor in fails, and its predecessor stays.
pub trait Hooks: Send + Sync {
    /// A smoke test: asks the new worker something, say. Default: it is fit.
    ///
    /// # Errors
    /// Why it is not.
    fn after_ready(&self, worker: &WorkerInfo) -> Result<(), String> {
        let _ = worker;
        Ok(())
    }

    /// Its predecessor is about to be retired in its favour: takes it out of a load balancer, say. Called after
    /// [`Hooks::after_ready`], only if there is a predecessor that serves. Default: nothing.
    ///
    /// # Errors
    /// Why it must not be.
    fn before_retire(&self, predecessor: &WorkerInfo, successor: &WorkerInfo) -> Result<(), String> {
        let _ = (predecessor, successor);
        Ok(())
    }
}

/// Has the last word on how a worker is started: to run it in a container, under a tracer, with more in its environment.
/// Called on the thread that runs the brokers: it must not block.
pub trait Launcher: Send + Sync {
    /// Changes what is about to be executed.
    ///
    /// # Errors
    /// Why it cannot be started: then it counts as a failed start.
    fn prepare(&self, worker: &WorkerInfo, execution: &mut Execution) -> Result<(), String>;
}

/// What is about to be executed as a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Execution {
    /// The program's path, then its arguments. A bare program name is looked up in `PATH`.
    pub command: Vec<String>,
    /// Added to the worker's environment, over what is there.
    pub environment: BTreeMap<String, String>,
}

impl Execution {
    pub(crate) fn new(command: Vec<String>) -> Execution {
        Execution { command, environment: BTreeMap::new() }
    }
}

/// Whom hooks are asked about, and who has passed.
#[derive(Default)]
pub(crate) struct Checks {
    /// They say that they are ready, and it is not known yet what hooks there are.
    pub(crate) held: BTreeSet<u64>,
    pub(crate) asked: BTreeSet<u64>,
    pub(crate) passed: BTreeSet<u64>,
    /// Core is told that they are ready.
    pub(crate) told: Vec<WorkerId>,
}
