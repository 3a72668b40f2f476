//! From records back to an app. What is derived (counts, owners, timers, queues) is made anew from them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::app::App;
use crate::broker::Broker;
use crate::generation::Accepted;
use crate::id::{BrokerId, Generation, RequestId, WorkerId};
use crate::snapshot::body::{Fields, Kind, split};
use crate::snapshot::fields::{self, encode_app, names};
use crate::snapshot::image::{Contents, Tail};
use crate::snapshot::read;
use crate::snapshot::refused::Refused;
use crate::spec::BrokerSpec;

/// Builds the app. It is the very app that was recorded: writing it again gives the same bytes.
pub(super) fn build(contents: &Contents<'_>, given: &mut Given<'_>) -> Result<App, Refused> {
    let named = |record: &str| {
        let record = record.to_owned();
        move |wrong| match wrong {
            Wrong::Field(why) => Refused::Damaged { record, why },
            Wrong::Refused(refused) => refused,
        }
    };
    let reader = contents.reader;
    let mut fields = Fields::of(contents.body, reader);
    let (mut app, brokers) = Tail::read(&mut fields)
        .map_err(Wrong::Field)
        .and_then(|_| read::app(&mut fields))
        .and_then(|app| fields.appended().map(|()| app).map_err(Wrong::Field))
        .map_err(named(APP))?;
    for ((kind, key), (_, body)) in &contents.records {
        let mut fields = Fields::of(body, reader);
        one(&mut app, given, *kind, *key, &mut fields)
            .and_then(|()| fields.appended().map_err(Wrong::Field))
            .map_err(|wrong| named(&format!("{} {key}", kind.word()))(wrong))?;
    }
    let whole = |right, why| if right { Ok(()) } else { Err(named(APP)(Wrong::Field(why))) };
    whole(app.brokers.len() == brokers as usize, "it tells of another number of brokers")?;
    whole(
        app.brokers.iter().all(|broker| broker.places.len() == broker.wanted as usize),
        "a broker has another number of slots than it wants workers",
    )?;
    derive(&mut app);
    whole(is_what_was_read(&app, contents), "the records say the same thing in two ways")?;
    app.shared.changes.recorded = true;
    Ok(app)
}

/// Takes in one record. Brokers come first, then slots in order, workers, commands.
fn one(
    app: &mut App,
    given: &mut Given<'_>,
    kind: Kind,
    key: u128,
    fields: &mut Fields<'_>,
) -> Result<(), Wrong> {
    match kind {
        Kind::Broker => {
            let id = BrokerId(u32::try_from(app.brokers.len()).unwrap_or(u32::MAX));
            let broker = read::broker(id, fields, given)?;
            app.brokers.push(broker);
        }
        Kind::Slot => read::slot(app, key, fields)?,
        Kind::Worker => {
            let id = u64::try_from(key).map(WorkerId).map_err(|_| Wrong::Field("its id is too large"))?;
            read::worker(app, id, fields, given)?;
        }
        Kind::Command => read::command(app, RequestId(key), fields)?,
        Kind::App => return Err(Wrong::Field("there is only one app")),
    }
    Ok(())
}

/// What is not in the records: the specifications, each asked for once, and the bound addresses.
pub(super) struct Given<'a> {
    specs: &'a mut dyn FnMut(BrokerId, Generation) -> Option<BrokerSpec>,
    listens: &'a mut dyn FnMut(BrokerId) -> Vec<String>,
    known: BTreeMap<(BrokerId, Generation), Arc<Accepted>>,
}

impl<'a> Given<'a> {
    pub(super) fn new(
        specs: &'a mut dyn FnMut(BrokerId, Generation) -> Option<BrokerSpec>,
        listens: &'a mut dyn FnMut(BrokerId) -> Vec<String>,
    ) -> Self {
        Given { specs, listens, known: BTreeMap::new() }
    }

    /// The specification that came with this generation.
    pub(super) fn spec(&mut self, broker: BrokerId, since: Generation) -> Result<Arc<Accepted>, Wrong> {
        if let Some(known) = self.known.get(&(broker, since)) {
            return Ok(Arc::clone(known));
        }
        let missing = Refused::NoSpecification { broker, generation: since };
        let spec = (self.specs)(broker, since).ok_or(Wrong::Refused(missing))?;
        let accepted = Arc::new(Accepted { since, spec });
        self.known.insert((broker, since), Arc::clone(&accepted));
        Ok(accepted)
    }

    /// So many addresses; which of them are meant says the digest, if there is one.
    pub(super) fn listen(
        &mut self,
        broker: BrokerId,
        recorded: u32,
        digest: Option<u64>,
    ) -> Result<Vec<String>, Wrong> {
        let mut listen = (self.listens)(broker);
        let given = listen.len();
        let refused = Wrong::Refused(Refused::Listeners { broker, recorded, given });
        match digest {
            None if given == recorded as usize => Ok(listen),
            None => Err(refused),
            Some(digest) => {
                let kept = those_meant(&listen, recorded as usize, digest).ok_or(refused)?;
                let mut kept = kept.into_iter();
                listen.retain(|_| kept.next().unwrap_or_default());
                Ok(listen)
            }
        }
    }
}

/// Why one record cannot be taken in.
pub(super) enum Wrong {
    Field(&'static str),
    Refused(Refused),
}

impl From<&'static str> for Wrong {
    fn from(why: &'static str) -> Self {
        Wrong::Field(why)
    }
}

/// Which of the addresses that are held were told: so many, in this order, with this digest. What is held beside them
/// was bound and not told yet, or told to be closed and still there.
fn those_meant(held: &[String], told: usize, digest: u64) -> Option<Vec<bool>> {
    let surplus = held.len().checked_sub(told)?;
    let mut left_out: Vec<usize> = (told..held.len()).collect();
    for _ in 0..MOST_TRIES {
        let kept: Vec<bool> = (0..held.len()).map(|place| !left_out.contains(&place)).collect();
        let meant = held.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(address, _)| address);
        if fields::digest(&meant.collect::<Vec<_>>()) == digest {
            return Some(kept);
        }
        // The next choice, from the last places to the first.
        let lower = |nth: &usize| nth.checked_sub(1).map_or(0, |before| left_out[before] + 1);
        let moved = (0..surplus).rev().find(|nth| left_out[*nth] > lower(nth))?;
        left_out[moved] -= 1;
        (moved + 1..surplus).for_each(|nth| left_out[nth] = told + nth);
    }
    None
}

fn derive(app: &mut App) {
    let App { brokers, shared, .. } = app;
    let mut orders = shared.requests.answered.make_contiguous().to_vec();
    orders.sort_unstable_by_key(|answered| answered.order);
    shared.requests.answered = orders.into();
    for broker in brokers.iter_mut() {
        for worker in broker.workers.keys() {
            shared.owners.insert(*worker, broker.id);
        }
        (broker.counts, broker.failing) = broker.recount();
        broker.standbys.all = broker.without_slot();
    }
    for broker in brokers.iter() {
        for (ticket, asked) in broker.tickets() {
            shared.budget.take_back(ticket, asked);
        }
    }
    shared.timers = brokers.iter().flat_map(Broker::deadlines).collect();
}

/// Writing the app again, each record in its version, gives the very records that were read: nothing in them was
/// overlooked but what a later version has appended.
fn is_what_was_read(app: &App, contents: &Contents<'_>) -> bool {
    let version =
        |body: &[u8]| split(body).map_or(contents.reader, |(head, _)| head.version).min(contents.reader);
    let names = names(app);
    names.len() == contents.records.len()
        && encode_app(app, contents.tail, version(contents.body)).is_said_by(contents.body)
        && names.iter().all(|name| {
            let read = contents.records.get(&(name.kind(), name.key()));
            read.is_some_and(|(_, read)| {
                name.encode(app, version(read)).is_some_and(|written| written.is_said_by(read))
            })
        })
}

/// Which addresses are meant is found at once but for a few that are held beside them.
const MOST_TRIES: u32 = 10_000;
const APP: &str = "the app's record";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_held_beside_those_that_were_told_are_left_out_wherever_they_are() {
        let held: Vec<String> = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        let meant = |told: &[&str]| {
            let kept = those_meant(&held, told.len(), fields::digest(told))?;
            Some(
                held.iter()
                    .zip(kept)
                    .filter(|(_, kept)| *kept)
                    .map(|(one, _)| one.as_str())
                    .collect::<Vec<_>>(),
            )
        };
        for told in [&["a", "b", "c", "d"][..], &["a", "b"], &["a", "d"], &["c"], &["b", "c", "d"], &[]] {
            assert_eq!(meant(told).as_deref(), Some(told));
        }
        assert_eq!(meant(&["b", "a"]), None, "their order is that in which they were told");
        assert_eq!(meant(&["e"]), None);
        assert_eq!(meant(&["a", "b", "c", "d", "e"]), None);
    }
}
