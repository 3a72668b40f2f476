//! What a broker process writes down once for its successors: what the app is, and each specification. They read this
//! and never the configuration, which may be another by then.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use shiftboss_core::id::{BrokerId, Generation};
use shiftboss_core::spec::BrokerSpec;

use crate::address::Listen;
use crate::keeper::{Inherited, Keeper};
use crate::keys::Key;
use crate::launch::Launch;
use crate::os::{clock, memory};
use crate::upgrade::Estate;

/// The app, under [`Key::App`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AppRecord {
    pub(crate) app: String,
    pub(crate) environment: String,
    /// The path of the control socket.
    pub(crate) socket: OsString,
    pub(crate) trace: Option<OsString>,
    /// By the wall clock, as it is shown.
    pub(crate) started_at: String,
    /// Whose clock all deadlines are of; one that an older version has written does not say.
    #[serde(default)]
    pub(crate) boot: Option<String>,
    pub(crate) hang_up_stops: bool,
    /// The program's file, which an upgrade looks at again.
    pub(crate) image: OsString,
    /// Without being asked, too.
    pub(crate) upgrades_itself: bool,
    /// Types in order of declaration.
    pub(crate) brokers: Vec<String>,
}

/// A specification, under [`Key::Spec`].
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct SpecRecord {
    pub(crate) spec: BrokerSpec,
    pub(crate) listen: Vec<Listen>,
    pub(crate) launch: Launch,
    /// Its program gives it extensions, as one of an older version does not say.
    #[serde(default)]
    pub(crate) extended: bool,
    #[cfg(feature = "schedule")]
    #[serde(default)]
    pub(crate) schedule: Option<crate::schedule::Schedule>,
    /// Its paths are absolute.
    #[cfg(feature = "watch")]
    #[serde(default)]
    pub(crate) watch: Option<crate::watch::Watch>,
}

impl AppRecord {
    pub(crate) fn deposit(&self, keeper: &Keeper, estate: &mut Estate) -> io::Result<()> {
        deposit(keeper, Key::App, self, estate)
    }

    pub(crate) fn claim(inherited: &mut Inherited, estate: &mut Estate) -> io::Result<AppRecord> {
        read(inherited, Key::App, estate).and_then(|app: AppRecord| app.is_of(clock::boot()).map(|()| app))
    }

    /// An error if this was written in another boot than ours.
    fn is_of(&self, ours: Option<String>) -> io::Result<()> {
        match (&self.boot, ours) {
            (Some(its), Some(ours)) if *its != ours => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it was begun in another boot of this machine ({its}, and this one is {ours})"),
            )),
            _ => Ok(()),
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        PathBuf::from(&self.socket)
    }
}

impl SpecRecord {
    pub(crate) fn deposit(
        &self,
        keeper: &Keeper,
        broker: BrokerId,
        generation: Generation,
        estate: &mut Estate,
    ) -> io::Result<()> {
        deposit(keeper, Key::Spec(broker, generation), self, estate)
    }

    /// Another version of the program may give it extensions, or none.
    pub(crate) fn extend(
        keeper: &Keeper,
        broker: BrokerId,
        extended: bool,
        estate: &mut Estate,
    ) -> io::Result<()> {
        let of_broker = |(key, _): &&(Key, OwnedFd)| matches!(key, Key::Spec(of, _) if *of == broker);
        // The last one is the one that counts.
        let Some((key, file)) = estate.iter().rfind(of_broker) else { return Ok(()) };
        let (key, mut record): (_, SpecRecord) =
            (*key, serde_json::from_slice(&memory::read(file.as_fd())?)?);
        if std::mem::replace(&mut record.extended, extended) == extended {
            return Ok(());
        }
        deposit(keeper, key, &record, estate)
    }

    /// All that are there.
    pub(crate) fn claim_all(
        inherited: &mut Inherited,
        estate: &mut Estate,
    ) -> io::Result<BTreeMap<(BrokerId, Generation), SpecRecord>> {
        let keys: Vec<u64> = inherited.keys().collect();
        let mut all = BTreeMap::new();
        for key in keys {
            if let Some(key @ Key::Spec(broker, generation)) = Key::of(key) {
                all.insert((broker, generation), read(inherited, key, estate)?);
            }
        }
        Ok(all)
    }
}

fn deposit(keeper: &Keeper, key: Key, record: &impl Serialize, estate: &mut Estate) -> io::Result<()> {
    let file = memory::sealed("shiftboss", &serde_json::to_vec(record)?)?;
    keeper.deposit(key, &[file.as_fd()], 0)?;
    estate.push((key, file));
    Ok(())
}

fn read<T: DeserializeOwned>(inherited: &mut Inherited, key: Key, estate: &mut Estate) -> io::Result<T> {
    let file = inherited.claim_one(key).ok_or_else(|| missing(key))?;
    let record = serde_json::from_slice(&memory::read(file.as_fd())?)?;
    estate.push((key, file));
    Ok(record)
}

pub(crate) fn missing(key: Key) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("the keeper has no {key:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_goes_on_with_an_app_of_another_boot() {
        let written = r#"{"app": "shop", "environment": "default", "socket": {"Unix": []}, "trace": null,
            "started_at": "", "boot": "abc", "hang_up_stops": false, "image": {"Unix": []},
            "upgrades_itself": false, "brokers": []}"#;
        let mut app: AppRecord = serde_json::from_str(written).unwrap();
        let refused = app.is_of(Some("def".to_owned())).unwrap_err().to_string();
        assert_eq!(refused, "it was begun in another boot of this machine (abc, and this one is def)");
        assert!(app.is_of(Some("abc".to_owned())).is_ok() && app.is_of(None).is_ok());
        app.boot = clock::boot();
        assert!(app.boot.as_ref().is_some_and(|boot| !boot.is_empty()) && app.is_of(clock::boot()).is_ok());
    }
}
