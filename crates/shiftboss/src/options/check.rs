//! Options of a program that could never work. Those of a file are checked with their places, all at once: see `config`.

use std::time::Duration;

use shiftboss_core::spec::{MAX_WORKERS, Ready};

use super::{BrokerOptions, Kind, NOTICE};
use crate::address::Balance;
use crate::os::lanes;

/// Why a broker cannot be started with its options.
#[derive(Debug, thiserror::Error)]
#[error("broker `{broker}`: {what}")]
pub struct OptionsError {
    /// Whose.
    pub broker: String,
    /// Which, and what is wrong.
    pub what: String,
}

impl BrokerOptions {
    /// # Errors
    /// The first that cannot be.
    pub(crate) fn check(&self, broker: &str) -> Result<(), OptionsError> {
        match self.wrong(broker) {
            Some(what) => Err(OptionsError { broker: broker.to_owned(), what }),
            None => Ok(()),
        }
    }

    fn wrong(&self, broker: &str) -> Option<String> {
        let (recycle, backoff) = (&self.recycle, &self.backoff);
        let balanced = |balance| self.listen.iter().any(|listen| listen.balance == balance);
        let is_node = self.kind == Kind::Node;
        let what = match () {
            () if !is_name(broker) => return Some(format!("a name is {NAME_RULE}")),
            () if self.workers > MAX_WORKERS || self.standby > MAX_WORKERS => {
                return Some(format!("it has at most {MAX_WORKERS} workers, and as many standbys"));
            }
            () if balanced(Balance::Lanes) && self.workers > lanes::MOST => {
                return Some(format!("it has at most {} workers with lanes", lanes::MOST));
            }
            () if recycle.surge == 0 && recycle.unavailable == 0 => NO_RECYCLE,
            () if recycle.every.is_some_and(|every| every < Duration::from_secs(1)) => {
                "`recycle.every` is at least 1 s"
            }
            () if recycle.deadline < SHORTEST => "`recycle.deadline` is at least 1 ms",
            () if backoff.base < SHORTEST || backoff.cap < backoff.base => {
                "`backoff.base` is at least 1 ms, and `backoff.cap` no less than that"
            }
            () if self.stop.0.is_empty() => "a ladder without rungs asks nobody to leave",
            () if self.hung_after.is_some_and(|after| after < Duration::from_secs(1)) => {
                "`hung_after` is at least 1 s"
            }
            () if self.kind == Kind::Worker && self.notice != NOTICE => {
                "workers of this library know one notice only: \"suicide\""
            }
            () if balanced(Balance::RoundRobin) && !is_node => "round-robin needs Node programs",
            () if self.standby > 0 && self.kind == Kind::Plain => {
                "plain workers cannot be standbys: they serve as soon as they have started"
            }
            () if self.standby > 0 && self.names_slot() => NAMES_SLOT,
            () if self.standby > 0 && balanced(Balance::Lanes) && !is_node => NO_LANE_YET,
            () if self.ready == Some(Ready::Listening) && !is_node => {
                "only Node programs say that they listen: all others are seen to accept"
            }
            () if self.ready == Some(Ready::Accepting) && !self.accepts_connections() => {
                "nobody can be seen to accept without a listener for connections"
            }
            () => return None,
        };
        Some(what.to_owned())
    }
}

// In the words of a file as well.
pub(crate) const NO_RECYCLE: &str = "surge and unavailable are both 0, so no recycle could start";
pub(crate) const NO_LANE_YET: &str =
    "a standby has no slot yet, so it cannot be given the lane of one when it is started";
pub(crate) const NAMES_SLOT: &str =
    "a standby is started without a slot: `{slot}` cannot stand in command or environment";

/// Whether an app or a broker may be called so: it is part of file names, addresses and commands.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        && name.as_bytes()[0].is_ascii_alphanumeric()
}

pub(crate) const NAME_RULE: &str = "1 to 64 of A-Z a-z 0-9 _ -, starting with a letter or digit";

/// What the clock tells apart.
pub(crate) const SHORTEST: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Listen;

    type Change = fn(&mut BrokerOptions);

    /// The defaults with one thing changed, and a word of what is said of it.
    #[test]
    fn what_could_never_work_is_refused() {
        let wrongs: [(&str, Change); 15] = [
            ("at most", |options| options.workers = MAX_WORKERS + 1),
            ("at most", |options| options.standby = MAX_WORKERS + 1),
            ("no recycle could start", |options| options.recycle.surge = 0),
            ("`recycle.every`", |options| options.recycle.every = Some(Duration::ZERO)),
            ("`recycle.deadline`", |options| options.recycle.deadline = Duration::ZERO),
            ("`backoff.base`", |options| options.backoff.base = Duration::ZERO),
            ("`backoff.cap`", |options| options.backoff.cap = Duration::ZERO),
            ("asks nobody", |options| options.stop.0.clear()),
            ("`hung_after`", |options| options.hung_after = Some(Duration::ZERO)),
            ("one notice only", |options| options.notice = "leave".into()),
            ("needs Node", |options| options.listen = vec![listen(Balance::RoundRobin)]),
            ("with lanes", |options| {
                (options.workers, options.listen) = (lanes::MOST + 1, vec![listen(Balance::Lanes)]);
            }),
            ("has no slot yet", |options| {
                (options.standby, options.listen) = (1, vec![listen(Balance::Lanes)]);
            }),
            ("only Node", |options| options.ready = Some(Ready::Listening)),
            ("without a listener", |options| options.ready = Some(Ready::Accepting)),
        ];
        let fine = BrokerOptions::default();
        assert!(fine.check("a").is_ok());
        for name in ["", "a/b", "../a", "-a", "ä"] {
            assert!(fine.check(name).unwrap_err().to_string().contains("a name is 1 to 64"), "{name}");
        }
        for (at, (said, change)) in wrongs.into_iter().enumerate() {
            let mut options = fine.clone();
            change(&mut options);
            let error = options.check("shop").unwrap_err().to_string();
            assert!(error.starts_with("broker `shop`: ") && error.contains(said), "{at}: {error}");
        }
    }

    fn listen(balance: Balance) -> Listen {
        Listen { balance, ..Listen::new("web", "tcp://127.0.0.1:3000").unwrap() }
    }
}
