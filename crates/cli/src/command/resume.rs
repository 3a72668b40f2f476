//! `resume`: the workers of a drained broker are started again.

use super::{Session, follow, targets};
use crate::args::Targets;
use crate::exit::{Exit, Trouble};
use crate::progress::{Doing, Track};

/// Runs the verb.
pub(crate) async fn run(session: &Session<'_>, asked: &Targets) -> Result<Exit, Trouble> {
    let status = session.status().await;
    let targets = targets::resolve(asked, "resume", false, status.as_ref().map_err(Clone::clone))?;
    let status = status?;
    let mut jobs = Vec::new();
    for target in targets {
        let broker = targets::find(&status, &target.name)?;
        let call = session.client.resume(&target.name, &session.options())?;
        jobs.push(follow::Job {
            call,
            track: Track::new(Doing::Resume, broker),
            listens: !broker.listen.is_empty(),
        });
    }
    if asked.no_wait { follow::leave(session, jobs).await } else { follow::follow(session, jobs).await }
}
