//! `recycle`: every worker, or the one of a slot, is replaced by a new one.

use shiftboss_api::Recycle;

use super::targets::{self, Target};
use super::{Session, follow};
use crate::args::Targets;
use crate::exit::{Exit, Trouble};
use crate::progress::{Doing, Track};

/// Runs the verb.
pub(crate) async fn run(session: &Session<'_>, asked: &Targets) -> Result<Exit, Trouble> {
    let status = session.status().await;
    let targets = targets::resolve(asked, "recycle", true, status.as_ref().map_err(Clone::clone))?;
    let status = status?;
    let mut jobs = Vec::new();
    for Target { name, slot } in targets {
        let broker = targets::find(&status, &name)?;
        let call = session.client.recycle(&name, &Recycle { slot }, &session.options())?;
        let track = Track::new(Doing::Recycle(slot), broker);
        jobs.push(follow::Job { call, track, listens: !broker.listen.is_empty() });
    }
    if asked.no_wait { follow::leave(session, jobs).await } else { follow::follow(session, jobs).await }
}
