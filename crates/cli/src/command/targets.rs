//! Whom a verb is about: the words of the command line, checked against what the app has.

use shiftboss_api::{Broker, Status};

use crate::args;
use crate::exit::{Exit, Trouble};
use crate::text;

/// One broker, or one slot of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) slot: Option<u32>,
}

/// Those of `TYPE…` or `--all`, each once: a slot is part of its broker. `status` is none when the app does not answer.
pub(super) fn resolve(
    asked: &args::Targets,
    verb: &str,
    slots: bool,
    status: Result<&Status, Trouble>,
) -> Result<Vec<Target>, Trouble> {
    named(&asked.types, asked.all, verb, slots, status)
}

/// The same of these words.
pub(super) fn named(
    words: &[String],
    all: bool,
    verb: &str,
    slots: bool,
    status: Result<&Status, Trouble>,
) -> Result<Vec<Target>, Trouble> {
    if words.is_empty() && !all {
        return Err(nobody_named(verb, status.ok()));
    }
    let status = status?;
    if all {
        let all = status.brokers.iter().map(|broker| Target { name: broker.name.clone(), slot: None });
        return Ok(all.collect());
    }
    let mut targets = Vec::new();
    for word in words {
        let target = read(word, verb, slots)?;
        let broker = find(status, &target.name)?;
        if let Some(slot) = target.slot.filter(|slot| *slot >= broker.wanted) {
            let wanted = text::count(broker.wanted, "worker");
            return Err(Trouble::usage(format!(
                "{} has no slot {slot}: it keeps {wanted}, from slot 0 on",
                broker.name
            )));
        }
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    let whole: Vec<String> =
        targets.iter().filter(|target| target.slot.is_none()).map(|target| target.name.clone()).collect();
    targets.retain(|target| target.slot.is_none() || !whole.contains(&target.name));
    Ok(targets)
}

/// The broker of that type.
pub(super) fn find<'a>(status: &'a Status, name: &str) -> Result<&'a Broker, Trouble> {
    if let Some(broker) = status.brokers.iter().find(|broker| broker.name == name) {
        return Ok(broker);
    }
    let known = || status.brokers.iter().map(|broker| broker.name.as_str());
    let error = format!("`{name}` is not a type of {}: its types are {}", status.app, types(status));
    let trouble = Trouble::new(Exit::Usage, error);
    Err(match text::nearest(name, known()) {
        Some(near) => trouble.help(format!("did you mean `{near}`?")),
        None => trouble,
    })
}

fn read(word: &str, verb: &str, slots: bool) -> Result<Target, Trouble> {
    let Some((name, slot)) = word.split_once('/') else {
        return Ok(Target { name: word.to_owned(), slot: None });
    };
    if !slots {
        return Err(Trouble::usage(format!(
            "`{word}` is one worker, and {verb} acts on all workers of a type"
        ))
        .help(format!("`shiftboss {verb} {name}`")));
    }
    match slot.parse() {
        Ok(slot) => Ok(Target { name: name.to_owned(), slot: Some(slot) }),
        Err(_) => Err(Trouble::usage(format!("`{slot}` is no slot: expected a number, as in `{name}/0`"))),
    }
}

fn nobody_named(verb: &str, status: Option<&Status>) -> Trouble {
    let types = status.map(|status| format!(" (its types: {})", types(status)));
    Trouble::usage(format!("{verb} needs a TYPE or --all{}", types.unwrap_or_default()))
}

fn types(status: &Status) -> String {
    let names: Vec<&str> = status.brokers.iter().map(|broker| broker.name.as_str()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::{broker, status, worker};

    fn shop() -> Status {
        status(vec![broker("api", vec![worker(0, 5)]), broker("jobs", vec![])])
    }

    fn asked(types: &[&str], all: bool) -> args::Targets {
        args::Targets { types: types.iter().map(|&word| word.to_owned()).collect(), all, no_wait: false }
    }

    #[test]
    fn all_is_every_broker_and_a_word_given_twice_counts_once() {
        let names = |targets: Vec<Target>| targets.into_iter().map(|target| target.name).collect::<Vec<_>>();
        let all = resolve(&asked(&[], true), "drain", false, Ok(&shop())).unwrap();
        assert_eq!(names(all), ["api", "jobs"]);
        let twice = resolve(&asked(&["jobs", "jobs"], false), "drain", false, Ok(&shop())).unwrap();
        assert_eq!(names(twice), ["jobs"]);
        for words in [["api", "api/0"], ["api/0", "api"]] {
            let slot_too = resolve(&asked(&words, false), "recycle", true, Ok(&shop())).unwrap();
            assert_eq!(slot_too, [Target { name: "api".into(), slot: None }]);
        }
    }

    #[test]
    fn nobody_named_is_a_usage_error_that_names_the_types() {
        let trouble = resolve(&asked(&[], false), "drain", false, Ok(&shop())).unwrap_err();
        let expected = "drain needs a TYPE or --all (its types: api, jobs)";
        assert_eq!((trouble.exit, trouble.error.as_str()), (Exit::Usage, expected));
        let absent = Err(Trouble::new(Exit::NoApp, "no app"));
        assert_eq!(resolve(&asked(&[], false), "drain", false, absent).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn an_unknown_type_names_the_known_ones_and_the_nearest() {
        let trouble = resolve(&asked(&["apy"], false), "drain", false, Ok(&shop())).unwrap_err();
        let expected =
            "error: `apy` is not a type of shop: its types are api, jobs\nhelp: did you mean `api`?";
        assert_eq!((trouble.exit, trouble.render().as_str()), (Exit::Usage, expected));
    }

    #[test]
    fn only_a_recycle_takes_a_slot() {
        let target = resolve(&asked(&["api/0"], false), "recycle", true, Ok(&shop())).unwrap();
        assert_eq!(target, [Target { name: "api".into(), slot: Some(0) }]);
        let drain = resolve(&asked(&["api/2"], false), "drain", false, Ok(&shop())).unwrap_err();
        assert_eq!((drain.exit, drain.help.as_deref()), (Exit::Usage, Some("`shiftboss drain api`")));
        let wrong = resolve(&asked(&["api/x"], false), "recycle", true, Ok(&shop())).unwrap_err();
        assert_eq!(wrong.exit, Exit::Usage);
        let beyond = resolve(&asked(&["api/1"], false), "recycle", true, Ok(&shop())).unwrap_err();
        assert_eq!(
            (beyond.exit, beyond.error.as_str()),
            (Exit::Usage, "api has no slot 1: it keeps 1 worker, from slot 0 on")
        );
    }
}
