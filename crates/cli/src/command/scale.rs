//! `scale`: a broker keeps another number of workers from now on.

use shiftboss_api::Scale;

use super::{Session, follow, targets};
use crate::args::ScaleArgs;
use crate::exit::{Exit, Trouble};
use crate::progress::{Doing, Track};

/// Runs the verb.
pub(crate) async fn run(session: &Session<'_>, asked: &ScaleArgs) -> Result<Exit, Trouble> {
    let status = session.status().await?;
    let broker = targets::find(&status, &asked.broker)?;
    let body = Scale { workers: asked.workers };
    let call = session.client.scale(&asked.broker, &body, &session.options())?;
    let track = Track::new(Doing::Scale(asked.workers), broker);
    let jobs = vec![follow::Job { call, track, listens: !broker.listen.is_empty() }];
    if asked.no_wait { follow::leave(session, jobs).await } else { follow::follow(session, jobs).await }
}
