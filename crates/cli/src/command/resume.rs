//! `resume`: the workers of a drained broker are started again, or those of a closed one.

use shiftboss_api::{Broker, BrokerState, Resume};

use super::{Session, follow, targets};
use crate::args::ResumeArgs;
use crate::exit::{Exit, Trouble};
use crate::progress::{Doing, Track};

/// Runs the verb.
pub(crate) async fn run(session: &Session<'_>, asked: &ResumeArgs) -> Result<Exit, Trouble> {
    let ResumeArgs { targets: asked, now } = asked;
    let body = Resume { now: *now };
    let status = session.status().await;
    let targets = targets::resolve(asked, "resume", false, status.as_ref().map_err(Clone::clone))?;
    let status = status?;
    let mut jobs = Vec::new();
    for target in targets {
        let broker = targets::find(&status, &target.name)?;
        if broker.state == BrokerState::Closed && !now {
            session.output.say(&closed(broker));
        }
        let call = session.client.resume(&target.name, &body, &session.options())?;
        let mut track = Track::new(Doing::Resume, broker);
        // The schedule has it again as soon as it is resumed, and may keep it closed: an event says so.
        track.if_closed = (broker.state != BrokerState::Closed).then(|| closed(broker));
        jobs.push(follow::Job { call, track, listens: !broker.listen.is_empty() });
    }
    if asked.no_wait { follow::leave(session, jobs).await } else { follow::follow(session, jobs).await }
}

/// Why it is waited for.
fn closed(broker: &Broker) -> String {
    let opens = broker.next_change_at.as_ref().map(|at| format!(" at {at}")).unwrap_or_default();
    format!("{} is closed by its schedule, which opens it{opens}; `--now` opens it at once", broker.name)
}
