//! What comes of something that was asked: to be awaited, or waited for.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use shiftboss_api as api;
use tokio::sync::oneshot;

use crate::broker::Broker;
use crate::engine::block_on;
use crate::mail::{CallError, Errand, Untold};
use crate::members::Member;
use crate::worker::WorkerContext;

/// The answer to something that was asked of an app. It is asked when this is made: dropping it takes nothing back. It can
/// be awaited in any runtime, or [waited for](Answer::wait) outside of one.
#[must_use = "without it nobody knows what came of it; `let _ =` if that is meant"]
pub struct Answer<T> {
    coming: Pin<Box<dyn Future<Output = Result<T, AskError>> + Send>>,
}

/// Why what was asked for is not so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// It was tried, and given up.
    #[error("{reason}")]
    Failed {
        /// Why.
        reason: String,
        /// What the worker that failed wrote last.
        last_lines: Vec<String>,
    },
    /// Something else was asked for in between.
    #[error("superseded: {0}")]
    Superseded(String),
    /// It was not taken, and changed nothing.
    #[error("refused: {0}")]
    Refused(String),
    /// The worker could not be told.
    #[error(transparent)]
    Untold(#[from] Untold),
    /// The app has ended.
    #[error("the app has ended")]
    Ended,
}

/// What a command has reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Done {
    /// A remark, such as "was drained already".
    pub note: Option<String>,
    /// Workers replaced.
    pub replaced: u32,
    /// Workers killed because they did not leave in time.
    pub cut: u32,
    /// Connections reset because nobody was left to take them.
    pub refused: u64,
}

impl Done {
    pub(crate) fn of(outcome: api::Outcome) -> Result<Done, AskError> {
        match outcome {
            api::Outcome::Done { note, replaced, cut, refused, .. } => {
                Ok(Done { note, replaced, cut, refused })
            }
            api::Outcome::Failed { reason, last_lines, .. } => Err(AskError::Failed { reason, last_lines }),
            api::Outcome::Superseded { reason } => Err(AskError::Superseded(reason)),
            api::Outcome::Refused { reason, .. } => Err(AskError::Refused(reason)),
        }
    }
}

impl<T: Send + 'static> Answer<T> {
    pub(crate) fn of<A: Send + 'static>(
        answer: oneshot::Receiver<A>,
        read: impl FnOnce(A) -> Result<T, AskError> + Send + 'static,
    ) -> Answer<T> {
        let coming = async move { read(answer.await.map_err(|_| AskError::Ended)?) };
        Answer { coming: Box::pin(coming) }
    }

    /// What was to be said cannot be.
    pub(crate) fn unspeakable(why: &serde_json::Error) -> Answer<T> {
        let error = AskError::Refused(format!("the message cannot be sent: {why}"));
        Answer { coming: Box::pin(std::future::ready(Err(error))) }
    }

    /// Blocks until it is there. Not to be called from asynchronous code.
    ///
    /// # Errors
    /// [`AskError`].
    pub fn wait(self) -> Result<T, AskError> {
        block_on(self)
    }
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

impl<T> Future for Answer<T> {
    type Output = Result<T, AskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.coming.as_mut().poll(context)
    }
}

/// A question to one worker, or of a worker to its broker; asked when it is awaited or waited for.
///
/// ```no_run
/// # fn ask(worker: shiftboss::Member) -> Result<(), shiftboss::CallError> {
/// use std::time::Duration;
/// // In asynchronous code `.await` instead of `.wait()`.
/// let square: u64 = worker.call(&12).within(Duration::from_secs(2)).wait()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is asked before it is awaited"]
pub struct Call<R> {
    whom: Whom,
    message: serde_json::Result<Box<RawValue>>,
    within: Duration,
    answer: PhantomData<fn() -> R>,
}

#[derive(Debug)]
enum Whom {
    Worker(Member),
    Broker(WorkerContext),
}

impl<R> Call<R> {
    pub(crate) fn to_worker(worker: Member, message: serde_json::Result<Box<RawValue>>) -> Self {
        Call { whom: Whom::Worker(worker), message, within: WITHIN, answer: PhantomData }
    }

    pub(crate) fn to_broker(context: WorkerContext, message: serde_json::Result<Box<RawValue>>) -> Self {
        Call { whom: Whom::Broker(context), message, within: WITHIN, answer: PhantomData }
    }

    /// How long the answer may take; default 30 s.
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }
}

impl<R: DeserializeOwned> Call<R> {
    /// Blocks until there is an answer. Not to be called from asynchronous code.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn wait(self) -> Result<R, CallError> {
        block_on(self.ask())
    }

    async fn ask(self) -> Result<R, CallError> {
        let message = self.message.map_err(|error| CallError::unspeakable(&error))?;
        let answer = match self.whom {
            Whom::Worker(worker) => worker.ask(message, self.within).await?,
            Whom::Broker(context) => context.ask(&message, self.within).await?,
        };
        serde_json::from_str(answer.get()).map_err(|error| CallError::Unreadable(error.to_string()))
    }
}

impl<R> fmt::Debug for Call<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Call { whom, within, .. } = self;
        f.debug_struct("Call").field("whom", whom).field("within", within).finish_non_exhaustive()
    }
}

impl<R: DeserializeOwned + 'static> IntoFuture for Call<R> {
    type Output = Result<R, CallError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.ask())
    }
}

/// A question to all workers of a broker, asked when it is awaited or waited for.
#[must_use = "nothing is asked before it is awaited"]
pub struct CallAll<R> {
    broker: Broker,
    message: serde_json::Result<Box<RawValue>>,
    within: Duration,
    answer: PhantomData<fn() -> R>,
}

/// Each worker with what it answers, in order of their ids.
pub type Answers<R> = Vec<(Member, Result<R, CallError>)>;

impl<R> CallAll<R> {
    pub(crate) fn new(broker: Broker, message: serde_json::Result<Box<RawValue>>) -> Self {
        CallAll { broker, message, within: WITHIN, answer: PhantomData }
    }

    /// How long the workers may take to answer; default 30 s.
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }
}

impl<R: DeserializeOwned> CallAll<R> {
    /// Blocks until all have answered, or will not. Not to be called from asynchronous code.
    pub fn wait(self) -> Answers<R> {
        block_on(self.ask())
    }

    async fn ask(self) -> Answers<R> {
        let message = self.message.map_err(|error| CallError::unspeakable(&error));
        let (reply, members) = oneshot::channel();
        self.broker.run(Errand::Listeners { broker: self.broker.shared.id, reply });
        let members = members.await.unwrap_or_default();
        let mut asked = Vec::new();
        for (worker, pid, slot) in members {
            let member = Member::of(self.broker.clone(), worker, pid, Some(slot));
            let (reply, answer) = oneshot::channel();
            match message.clone() {
                Ok(message) => self.broker.run(Errand::Call { worker, message, within: self.within, reply }),
                Err(error) => drop(reply.send(Err(error))),
            }
            asked.push((member, answer));
        }
        let mut answers = Vec::new();
        for (member, answer) in asked {
            let answer = answer.await.unwrap_or(Err(CallError::AppEnded));
            let read = |answer: Box<RawValue>| serde_json::from_str(answer.get());
            let answer = answer.and_then(|answer| {
                read(answer).map_err(|error: serde_json::Error| CallError::Unreadable(error.to_string()))
            });
            answers.push((member, answer));
        }
        answers
    }
}

impl<R> fmt::Debug for CallAll<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CallAll { broker, within, .. } = self;
        f.debug_struct("CallAll").field("broker", broker).field("within", within).finish_non_exhaustive()
    }
}

impl<R: DeserializeOwned + Send + 'static> IntoFuture for CallAll<R> {
    type Output = Answers<R>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.ask())
    }
}

const WITHIN: Duration = Duration::from_secs(30);
