//! The app replaced by one that another process makes of its records.

use std::collections::BTreeMap;

use shiftboss_core::App;
use shiftboss_core::id::{BrokerId, Generation};
use shiftboss_core::snapshot::{Layout, Records, Store, restore, written};
use shiftboss_core::spec::BrokerSpec;

/// The same app as its records tell it, or what is wrong with it.
pub(crate) fn restored(app: &App, accepted: &BTreeMap<Generation, BrokerSpec>) -> Result<App, String> {
    let mut records = Records::new(Memory(vec![0; SMALL.size()]), SMALL);
    records.record(&mut app.clone()).map_err(|full| full.to_string())?;
    let status = app.status();
    let listens = |broker: BrokerId| status.brokers[broker.0 as usize].listen.clone();
    let specs = |_, generation| accepted.get(&generation).cloned();
    let restored = restore(&records.store().0, specs, listens).map_err(|refused| refused.to_string())?;
    if written(&restored) != written(app)
        || restored.status() != status
        || restored.deadline() != app.deadline()
    {
        return Err("the state restored is not the state recorded".to_owned());
    }
    if !restored.is_consistent() {
        return Err("counts, owners or timers of the state restored left their states".to_owned());
    }
    Ok(restored)
}

struct Memory(Vec<u8>);

impl Store for Memory {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

const SMALL: Layout = Layout { brokers: 1, slots: 4, workers: 16, commands: 8 };
