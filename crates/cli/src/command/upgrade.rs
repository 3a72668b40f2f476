//! `upgrade`: the program that is now on disk takes over; workers, sockets and commands stay.

use shiftboss_api::Upgrade;

use super::{Session, follow};
use crate::args::UpgradeArgs;
use crate::exit::{Exit, Trouble};
use crate::progress::{Doing, Track};

/// Runs the verb.
pub(crate) async fn run(session: &Session<'_>, asked: &UpgradeArgs) -> Result<Exit, Trouble> {
    let check = asked.check;
    let status = session.status().await?;
    let call = session.client.upgrade(&Upgrade { check }, &session.options())?;
    let track = Track::of_app(&status.app, Doing::Upgrade { check });
    let jobs = vec![follow::Job { call, track, listens: false }];
    if asked.no_wait { follow::leave(session, jobs).await } else { follow::follow(session, jobs).await }
}
