//! The keys of each kind of table: known ones, ones of later versions, and the nearest known one to a wrong word.

/// The keys one kind of table may have.
pub(super) struct Level {
    pub(super) known: &'static [&'static str],
    /// Understood, and refused until a later version does what they say.
    pub(super) later: &'static [&'static str],
}

/// Environments are taken out before the keys are looked at.
pub(super) const TOP: Level = Level {
    known: &["app", "upgrade", "broker", "env", SETTINGS],
    later: &["control", "metrics", "sentry", "fleet", "dashboard"],
};

/// What an environment may change.
pub(super) const ENVIRONMENT: Level = Level { known: &["upgrade", "broker", SETTINGS], later: &[] };

/// The program's own part of the file.
pub(super) const SETTINGS: &str = "settings";

pub(super) const BROKER: Level = Level {
    known: &[
        "command",
        "kind",
        "workers",
        "standby",
        "listen",
        "ready",
        "recycle",
        "stop",
        "backoff",
        "drained",
        "serialization",
        "hung_after",
        "preload",
        #[cfg(feature = "schedule")]
        "schedule",
        #[cfg(feature = "watch")]
        "watch",
        "cwd",
        "environment",
        "clean_environment",
    ],
    later: &[
        #[cfg(not(feature = "watch"))]
        "watch",
        #[cfg(not(feature = "schedule"))]
        "schedule",
        "env_file",
        "user",
        "group",
        "umask",
        "nice",
        "cpus",
        "limits",
        "cgroup",
        "output",
        "after",
        "balance",
        "max_message",
    ],
};

pub(super) const LISTEN: Level = Level { known: &["name", "address", "balance"], later: &[] };
pub(super) const READY: Level = Level { known: &["after"], later: &["http", "exec", "tcp"] };
pub(super) const RECYCLE: Level = Level {
    known: &["every", "jitter", "surge", "unavailable", "min_ready", "deadline"],
    later: &["max_memory", "max_age"],
};
pub(super) const STOP: Level = Level { known: &["message", "signal", "wait"], later: &[] };
pub(super) const BACKOFF: Level = Level { known: &["base", "cap", "healthy_after"], later: &[] };

#[cfg(feature = "schedule")]
pub(super) const SCHEDULE: Level = Level { known: &["open", "close", "timezone"], later: &[] };
#[cfg(feature = "watch")]
pub(super) const WATCH: Level = Level { known: &["paths", "debounce"], later: &[] };

/// The one of these words that was probably meant, by spelling or because other tools call it so.
pub(super) fn nearest<'w>(word: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    if word.len() > LONGEST {
        return None;
    }
    let wanted = word.to_lowercase();
    let elsewhere = ELSEWHERE.iter().find(|(theirs, _)| *theirs == wanted);
    let allowed = (wanted.len() / 3).clamp(1, 3);
    let mut best: Option<(usize, &str)> = None;
    for candidate in words {
        if elsewhere.is_some_and(|(_, ours)| *ours == candidate) {
            return Some(candidate);
        }
        if candidate.len().abs_diff(wanted.len()) > allowed {
            continue;
        }
        let distance = strsim::osa_distance(&wanted, &candidate.to_lowercase());
        if distance <= allowed && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// No word that is longer was meant to be one of ours.
const LONGEST: usize = 40;

/// What other process managers call things.
const ELSEWHERE: &[(&str, &str)] = &[
    ("bind", "listen"),
    ("chdir", "cwd"),
    ("cmd", "command"),
    ("count", "workers"),
    ("dir", "cwd"),
    ("directory", "cwd"),
    ("env", "environment"),
    ("exec", "command"),
    ("group", "broker"),
    ("instances", "workers"),
    ("interval", "every"),
    ("max_surge", "surge"),
    ("max_unavailable", "unavailable"),
    ("name", "app"),
    ("numprocs", "workers"),
    ("pool", "broker"),
    ("port", "listen"),
    ("processes", "workers"),
    ("program", "command"),
    ("restart", "backoff"),
    ("script", "command"),
    ("service", "broker"),
    ("sockets", "listen"),
    ("type", "kind"),
    ("tz", "timezone"),
    ("vars", "environment"),
    ("watcher", "broker"),
    ("working_directory", "cwd"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_the_one_that_was_meant_or_none() {
        let near = |word| nearest(word, BROKER.known.iter().copied());
        assert_eq!(near("worker"), Some("workers"));
        assert_eq!(near("Workers"), Some("workers"));
        assert_eq!(near("comand"), Some("command"));
        assert_eq!(near("ocmmand"), Some("command"));
        assert_eq!(near("clean-environment"), Some("clean_environment"));
        assert_eq!(near("instances"), Some("workers"));
        assert_eq!(near("env"), Some("environment"));
        assert_eq!(near("xyzzy"), None);
        assert_eq!(near(&"a".repeat(1 << 20)), None);
    }

    #[test]
    fn no_key_is_both_known_and_later() {
        for level in [TOP, ENVIRONMENT, BROKER, LISTEN, READY, RECYCLE, STOP, BACKOFF] {
            assert!(level.later.iter().all(|key| !level.known.contains(key)));
        }
    }
}
