//! From records back to an app. What is derived (counts, owners, timers, queues) is made anew from them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::app::App;
use crate::broker::Broker;
use crate::generation::Accepted;
use crate::id::{BrokerId, Generation, RequestId, WorkerId};
use crate::snapshot::body::{Fields, Kind, split};
use crate::snapshot::fields::{encode_app, names};
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

    /// So many addresses.
    pub(super) fn listen(&mut self, broker: BrokerId, recorded: u32) -> Result<Vec<String>, Wrong> {
        let listen = (self.listens)(broker);
        if listen.len() == recorded as usize {
            return Ok(listen);
        }
        Err(Wrong::Refused(Refused::Listeners { broker, recorded, given: listen.len() }))
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

const APP: &str = "the app's record";
