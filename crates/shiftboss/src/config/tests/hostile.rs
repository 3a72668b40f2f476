//! Files that are no files, broken, huge, or hold secrets.

use super::super::{file, parse, read};
use super::WHOLE;

#[test]
fn no_value_of_an_environment_is_ever_shown_however_broken_the_file() {
    let places = [
        WHOLE.to_owned(),
        WHOLE.replace("environment = {", "enviroment = {"),
        WHOLE.replace("environment = {", "env = {"),
        WHOLE.replace("environment = { LOG_LEVEL = \"zqxzqxzqx\", \"odd name\" = \"zqx\" }", "[broker.api.environment]\nA = \"\"\"\nzqx\nzqx\"\"\""),
        WHOLE.replace("{ LOG_LEVEL = \"zqxzqxzqx\", \"odd name\" = \"zqx\" }", "[\"A=zqx\", \"zqx\"]"),
        WHOLE.replace("{ LOG_LEVEL = \"zqxzqxzqx\", \"odd name\" = \"zqx\" }", "\"zqx\""),
        "[settings]\ncommand = \"zqx\"\nport = 3\n[settings.db]\nlisten = [\"zqx\"]\n[broker.a]\nworkers = 0\n".to_owned(),
        "settings.command = \"zqx\"\nsettings = \"zqx\"\n[broker.a]\nworkers = 0\n[setings]\ncommand = \"zqx\"\n".to_owned(),
        "[env.x.settings]\ncommand = \"zqx\"\n[env.x]\nsettings.workers = \"zqx\"\n[env]\na = \"zqx\"\nb = { c = { d = \"zqx\" } }\n".to_owned(),
        "environment = { A = \"zqx\" }\n[broker]\nenvironment = { A = \"zqx\" }\n[env.x.broker.a.environment]\nA = \"zqx\"\n".to_owned(),
    ];
    for text in places {
        for broken in broken_versions(&text) {
            let shown = match parse("shiftboss.toml", &broken) {
                Ok(loaded) => {
                    loaded.explain() + &loaded.warnings.iter().map(ToString::to_string).collect::<String>()
                }
                Err(errors) => errors.to_string(),
            };
            assert!(!shown.contains("zqx"), "{broken}\n{shown}");
        }
    }
}

/// The text with one character left out, and cut off, at every place.
fn broken_versions(text: &str) -> impl Iterator<Item = String> {
    text.char_indices().flat_map(|(at, character)| {
        let (before, after) = text.split_at(at);
        [before.to_owned(), format!("{before}{}", &after[character.len_utf8()..])]
    })
}

#[test]
fn what_is_no_file_of_ours_is_refused_without_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    rustix::fs::mkfifoat(rustix::fs::CWD, at("fifo"), rustix::fs::Mode::RUSR).unwrap();
    std::fs::write(at("large"), vec![b'#'; (1 << 20) + 1]).unwrap();
    std::fs::write(at("latin1"), b"app = \"x\"\n# caf\xe9\n").unwrap();
    for (name, what, rest) in [
        (
            "missing",
            "there is no such configuration file",
            "\n  └ help: `shiftboss run -- CMD` runs a command without a file; `-c FILE` names\n          another file",
        ),
        ("", "expected a regular file, found a directory", ""),
        ("fifo", "expected a regular file, found a FIFO", ""),
        ("large", "the file is larger than 1 MiB", ""),
    ] {
        let path = at(name);
        let expected = format!("error: {what}\n  ┌ {}{rest}", path.display());
        assert_eq!(read(&path).unwrap_err().to_string(), expected);
    }
    let path = at("latin1");
    let expected = format!("error: not valid UTF-8: byte 0xe9 at offset 15\n  ┌ {}:2:6", path.display());
    assert_eq!(read(&path).unwrap_err().to_string(), expected);
    std::fs::write(at("full"), [WHOLE.as_bytes(), &vec![b'#'; (1 << 20) - WHOLE.len()]].concat()).unwrap();
    assert!(read(&at("full")).is_ok());
}

#[test]
fn a_file_cut_off_at_any_byte_is_answered() {
    for end in 0..=WHOLE.len() {
        let answer = match file::decode("f", WHOLE.as_bytes()[..end].to_vec()) {
            Ok(text) => parse("f", &text).map_or_else(|errors| errors.to_string(), |loaded| loaded.explain()),
            Err(error) => error.to_string(),
        };
        assert!(!answer.is_empty());
    }
}

#[test]
fn a_huge_text_in_any_place_is_answered_shortly() {
    let huge = "a".repeat(1 << 20);
    for line in [
        "app = \"@\"",
        "@ = 1",
        "broker.@.command = [\"x\"]",
        "broker.a.@ = 1",
        "broker.a.command = \"@\"",
        "broker.a.command = [\"@\"]",
        "broker.a.kind = \"@\"",
        "broker.a.workers = \"@\"",
        "broker.a.listen = \"@\"",
        "broker.a.listen = [\"@\"]",
        "broker.a.listen = [\"unix:///@\"]",
        "broker.a.listen = [{ name = \"@\", address = \"@\" }]",
        "broker.a.ready = \"@\"",
        "broker.a.ready.after = \"@\"",
        "broker.a.ready.after = \"1@\"",
        "broker.a.recycle.every = \"@\"",
        "broker.a.recycle.jitter = \"@%\"",
        "broker.a.stop = [{ signal = \"@\", wait = \"@\" }]",
        "broker.a.backoff.base = \"@\"",
        "broker.a.drained = \"@\"",
        "broker.a.environment.@ = 1",
        "broker.a.environment.A = \"@\"",
    ] {
        // With or without mistakes: what is said is short, but for the explanation of a value that is right.
        let Err(errors) = parse("f", &line.replace('@', &huge)) else { panic!("{line}: an app has no name") };
        assert!(errors.to_string().len() < 4000, "{line}");
        assert!(errors.to_string().lines().all(|line| line.chars().count() <= 80), "{line}: {errors}");
    }
}

#[test]
fn many_mistakes_in_many_environments_are_answered() {
    let mut text: String = (0..5_000).map(|number| format!("key{number} = 1\n")).collect();
    text.extend((0..32).map(|number| format!("[env.e{number}]\n")));
    assert_eq!(parse("shop/f", &text).unwrap_err().count(), 5_000);
    text.push_str("[env.more]\n");
    assert!(parse("shop/f", &text).unwrap_err().count() > 5_000);
}

#[test]
fn only_the_first_hundred_errors_are_shown_and_the_rest_counted() {
    let text: String = (0..150).map(|number| format!("key{number} = 1\n")).collect();
    let errors = parse("shop/f", &text).unwrap_err();
    assert_eq!((errors.iter().count(), errors.count()), (100, 150));
    assert!(errors.to_string().ends_with("\n\n… and 50 more errors"));
}
