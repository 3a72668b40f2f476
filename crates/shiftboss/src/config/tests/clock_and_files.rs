//! `schedule` and `watch`: what a right one means, and the words for wrong ones.

use std::path::Path;
use std::time::Duration;

use super::super::{parse, read};
use super::errors;
use crate::options::BrokerOptions;
use crate::{Schedule, Watch};

/// A broker with these lines.
fn broker(lines: &str) -> String {
    format!("app = \"shop\"\n[broker.jobs]\ncommand = [\"x\"]\n{lines}\n")
}

fn options(lines: &str) -> BrokerOptions {
    let loaded = parse("shop/shiftboss.toml", &broker(lines)).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(loaded.warnings.is_empty());
    let explained =
        parse("shop/shiftboss.toml", &loaded.explain()).unwrap_or_else(|errors| panic!("{errors}"));
    let (is, said) = (loaded.options.brokers[0].1.clone(), &explained.options.brokers[0].1);
    assert_eq!((&said.schedule, &said.watch), (&is.schedule, &is.watch));
    is
}

#[test]
fn a_schedule_is_two_patterns_and_perhaps_a_zone() {
    let hours = options(
        r#"schedule = { open = "0 8 * * mon-fri", close = "0 18 * * mon-fri", timezone = "Europe/Paris" }"#,
    );
    let paris = Schedule::new("0 8 * * mon-fri", "0 18 * * mon-fri", Some("Europe/Paris")).unwrap();
    assert_eq!(hours.schedule, Some(paris));
    let seconds = options(r#"schedule = { open = "*/4 * * * * *", close = "2-59/4 * * * * *" }"#);
    assert_eq!(seconds.schedule.unwrap().timezone(), None);
}

#[test]
fn what_is_wrong_with_a_schedule_is_shown_where_it_stands() {
    let expected = "\
error: broker `jobs`: `schedule.close` is missing
  ┌ shop/shiftboss.toml:4:1
4 │ schedule = { open = \"0 8 * * *\" }
  │ ^^^^^^^^ write close = \"0 18 * * mon-fri\"";
    assert_eq!(errors(&broker(r#"schedule = { open = "0 8 * * *" }"#)), expected);
    let expected = "\
error: broker `jobs`: `schedule.open`: `*/61` makes steps of 61; a minute is at
       most 59
  ┌ shop/shiftboss.toml:4:21
4 │ schedule = { open = \"*/61 * * * *\", close = \"0 0 30 2 *\" }
  │                     ^^^^^^^^^^^^^^
  └ help: minute, hour, day, month, day of the week: \"0 8 * * mon-fri\"

error: broker `jobs`: `schedule.close`: it names no date that ever comes
  ┌ shop/shiftboss.toml:4:45
4 │ schedule = { open = \"*/61 * * * *\", close = \"0 0 30 2 *\" }
  │                                             ^^^^^^^^^^^^
  └ help: minute, hour, day, month, day of the week: \"0 8 * * mon-fri\"";
    assert_eq!(errors(&broker(r#"schedule = { open = "*/61 * * * *", close = "0 0 30 2 *" }"#)), expected);
    let expected = "\
error: broker `jobs`: `schedule.timezone`: there is no time zone `Mars/Base`
  ┌ shop/shiftboss.toml:4:61
4 │ schedule = { open = \"@daily\", close = \"@hourly\", timezone = \"Mars/Base\" }
  │                                                             ^^^^^^^^^^^
  └ help: names are those of the IANA database, like \"Europe/Paris\"";
    let text = r#"schedule = { open = "@daily", close = "@hourly", timezone = "Mars/Base" }"#;
    assert_eq!(errors(&broker(text)), expected);
    let same = errors(&broker(r#"schedule = { open = "0 8 * * *", close = "0 8 * * *" }"#));
    assert!(same.contains("the same times") && same.contains(":4:42"), "{same}");
    let typo = errors(&broker(r#"schedule = { opens = "0 8 * * *", close = "0 9 * * *" }"#));
    assert!(typo.contains("did you mean `open`?"), "{typo}");
    let words = errors(&broker(r#"schedule = { open = "every morning", close = "0 9 * * *" }"#));
    assert!(words.contains("`schedule.open`: it is no cron pattern"), "{words}");
    assert!(errors(&broker("schedule = \"0 8 * * *\"")).contains("expected a table"));
}

#[test]
fn files_to_watch_are_a_list_or_a_table_with_one() {
    let list = options(r#"watch = ["src/**/*.js", "config.json"]"#);
    assert_eq!(list.watch, Some(Watch::new(["src/**/*.js", "config.json"]).unwrap()));
    let table = options(r#"watch = { paths = ["src/**/*.js"], debounce = "1s" }"#);
    assert_eq!(table.watch.unwrap().quiet_for(), Duration::from_secs(1));
}

#[test]
fn what_is_wrong_with_a_pattern_is_shown_where_it_stands() {
    let expected = "\
error: broker `jobs`: `watch`: `src/[` is no pattern: unclosed character class;
       missing ']'
  ┌ shop/shiftboss.toml:4:20
4 │ watch = [\"a/*.js\", \"src/[\", \"src/\"]
  │                    ^^^^^^^

error: broker `jobs`: `watch`: `src/` names no file; write one like
       \"src/**/*.js\"
  ┌ shop/shiftboss.toml:4:29
4 │ watch = [\"a/*.js\", \"src/[\", \"src/\"]
  │                             ^^^^^^";
    assert_eq!(errors(&broker(r#"watch = ["a/*.js", "src/[", "src/"]"#)), expected);
    assert!(errors(&broker("watch = []")).contains("nothing would be watched"));
    assert!(errors(&broker("watch = { debounce = \"1s\" }")).contains("`watch.paths` is missing"));
    assert!(errors(&broker("watch = \"src\"")).contains("expected an array of patterns, found a string"));
}

#[test]
fn patterns_are_relative_to_the_folder_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shiftboss.toml");
    let text = broker("watch = [\"src/*.js\"]") + "\n[env.live]\nupgrade = \"asked\"\n";
    std::fs::write(&path, text).unwrap();
    for environment in ["default", "live"] {
        let loaded = read(&path).unwrap().choose(environment).unwrap();
        let watch = loaded.options.brokers[0].1.watch.clone().unwrap();
        assert_eq!(watch.settled(Some(Path::new("/elsewhere"))), watch);
        assert_eq!(watch, Watch::new(["src/*.js"]).unwrap().relative_to(folder.path()));
    }
}

#[test]
fn all_that_is_wrong_with_a_schedule_is_told_at_once() {
    let found = errors(&broker(r#"schedule = { open = "0 8 * *", close = "0 25 * * *", timezone = "X" }"#));
    for words in ["`schedule.open`: it is no", "`schedule.close`: it is no", "there is no time zone `X`"] {
        assert!(found.contains(words), "{words}:\n{found}");
    }
    assert_eq!(found.matches("error:").count(), 3, "{found}");
    let found = errors(&broker(r#"schedule = { open = "@daily", close = "0 0 * * *", timezone = "X" }"#));
    assert!(found.contains("time zone `X`"), "{found}");
}
