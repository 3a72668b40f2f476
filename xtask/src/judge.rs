//! `cargo xtask judge`: reads traces of real apps and says whether any promise was broken. What counts as broken is the
//! oracle's.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use shiftboss_oracle::trace::{self, Fault, Judged};

pub(crate) fn run(words: &[OsString]) -> Result<bool> {
    if words.is_empty() {
        bail!("which trace? `SHIFTBOSS_TRACE=FILE shiftboss run …` writes one");
    }
    let mut kept = true;
    for word in words {
        let path = Path::new(word);
        let read = || -> Result<Result<Judged, Fault>> {
            let mut file = File::open(path)?;
            // A folder can be opened, and says so only when it is read.
            let _ = file.read(&mut [])?;
            Ok(trace::judge(BufReader::new(file)))
        };
        let cannot = || format!("cannot judge {}", path.display());
        match read().with_context(cannot)? {
            Ok(judged) if judged.runs == 0 => bail!("{} is empty: there is no run in it", path.display()),
            Ok(judged) => println!("{}: {}", path.display(), told(&judged)),
            Err(Fault::Broken { number, broken, steps }) => {
                println!("{}: {}", path.display(), Fault::Broken { number, broken, steps });
                kept = false;
            }
            Err(fault @ (Fault::Io(_) | Fault::Line { .. })) => return Err(fault).with_context(cannot),
        }
    }
    Ok(kept)
}

/// What was judged, and how much of it there was.
fn told(judged: &Judged) -> String {
    let names: BTreeSet<&str> = trace::names().collect();
    let (tested, untested): (Vec<&str>, Vec<&str>) =
        names.into_iter().partition(|name| judged.premises.contains_key(name));
    let times = |name: &&str| format!("{name} {}", judged.premises.get(*name).copied().unwrap_or_default());
    let Judged { runs, ended, steps, latest, .. } = judged;
    let runs = if *runs == 1 { "1 run".to_owned() } else { format!("{runs} runs") };
    let tested = tested.iter().map(times).collect::<Vec<_>>().join(", ");
    format!(
        "no promise broken\n  {runs}, {ended} to the end; {steps} steps, the latest {latest:.1?} after it was due\n{}\n{}",
        wrapped(&format!("put to the test: {tested}")),
        wrapped(&format!("never: {}", untested.join(", "))),
    )
}

/// In lines of at most 78 columns, indented.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::from(" ")];
    for piece in text.split_inclusive(", ") {
        let length = lines.last().map_or(0, |line| line.len() + piece.trim_end().len() + 1);
        if length > 78 {
            lines.push(String::from("   "));
        }
        if let Some(line) = lines.last_mut() {
            line.push(' ');
            line.push_str(piece.trim_end());
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(text: &str) -> Result<bool> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("trace");
        std::fs::write(&file, text).unwrap();
        run(&[file.into()])
    }

    const BEGIN: &str = r#"{"begin":{"trace":2,"version":"0","brokers":[]}}"#;
    const START: &str = r#"{"step":{"now":5,"input":null,"effects":[],"deadline":null}}"#;
    const TICK: &str = r#"{"step":{"now":6,"input":"Tick","effects":[],"deadline":null}}"#;

    #[test]
    fn a_trace_without_fault_is_said_to_be_so() {
        assert!(judged(&format!("{BEGIN}\n{START}\n")).unwrap());
    }

    #[test]
    fn a_step_about_nobody_is_an_error_and_no_panic() {
        let spawn = r#"{"Spawn":{"worker":1,"broker":7,"slot":0,"generation":1,"launch":0}}"#;
        let step = format!(r#"{{"step":{{"now":5,"input":null,"effects":[{spawn}],"deadline":null}}}}"#);
        let error = judged(&format!("{BEGIN}\n{step}\n")).unwrap_err();
        assert!(format!("{error:#}").contains("line 2"), "{error:#}");
        assert!(format!("{error:#}").contains("there is no broker 7"), "{error:#}");
    }

    #[test]
    fn a_broken_promise_is_a_failure_and_no_error() {
        assert!(!judged(&format!("{BEGIN}\n{START}\n{TICK}\n")).unwrap());
    }

    #[test]
    fn a_line_that_was_cut_off_ends_its_run_and_nothing_else() {
        assert!(judged(&format!("{BEGIN}\n{START}\n{{\"step")).unwrap());
        assert!(judged(&format!("{BEGIN}\n{START}\n{{\"step\n{BEGIN}\n{START}\n")).unwrap());
        let error = judged(&format!("{BEGIN}\n{{\"step\n{START}\n")).unwrap_err();
        assert!(format!("{error:#}").contains("line 2 is no line of a trace"), "{error:#}");
    }

    #[test]
    fn what_is_no_trace_is_an_error_that_names_the_file() {
        for (text, why) in [
            ("", "empty"),
            ("{\"a\":1}\n", "line 1 is no line of a trace"),
            ("\u{0}\u{1}\n\n", "line 1 is no line of a trace"),
            (&BEGIN.replace("\"trace\":2", "\"trace\":3"), "line 1 is no"),
        ] {
            let text = if text.is_empty() { String::new() } else { format!("{text}\n") };
            let error = format!("{:#}", judged(&text).unwrap_err());
            assert!(error.contains(why) && error.contains("trace"), "{error}");
        }
        let error = format!("{:#}", run(&["/nowhere/trace".into()]).unwrap_err());
        assert_eq!(error, "cannot judge /nowhere/trace: No such file or directory (os error 2)");
        let error = format!("{:#}", run(&["/".into()]).unwrap_err());
        assert!(error.contains("cannot judge /: Is a directory"), "{error}");
    }
}
