//! What `send` and `call` have to say: the last words of the command line.

use std::io::Read as _;

use serde_json::value::RawValue;
use shiftboss_api::client::ClientError;

use crate::exit::{Exit, Trouble};

/// To whom what is said.
#[derive(Debug)]
pub(super) struct Words {
    pub(super) targets: Vec<String>,
    pub(super) message: Box<RawValue>,
}

/// `TYPE… JSON`, of which "-" stands for standard input.
pub(super) fn read(words: &[String], all: bool, verb: &str) -> Result<Words, Trouble> {
    let (message, targets) = words.split_last().unwrap_or((const { &String::new() }, &[]));
    if targets.is_empty() && !all {
        return Err(Trouble::usage(format!("{verb} needs a TYPE and a message in JSON"))
            .help(format!("`shiftboss {verb} TYPE '{{\"say\":\"hello\"}}'`")));
    }
    if all && !targets.is_empty() {
        return Err(Trouble::usage(format!(
            "--all and `{}` contradict each other: expected only the message",
            targets[0]
        )));
    }
    let targets = targets.to_vec();
    let message = if message == "-" { json(&standard_input()?, true)? } else { json(message, false)? };
    Ok(Words { targets, message })
}

fn standard_input() -> Result<String, Trouble> {
    let mut text = String::new();
    match std::io::stdin().lock().take(MOST).read_to_string(&mut text) {
        Ok(_) if text.len() as u64 == MOST => {
            Err(Trouble::usage("standard input is longer than 16 MiB, the most that a channel takes"))
        }
        Ok(_) => Ok(text),
        Err(error) => Err(Trouble::usage(format!("standard input cannot be read as text: {error}"))),
    }
}

fn json(text: &str, from_input: bool) -> Result<Box<RawValue>, Trouble> {
    let error = match serde_json::from_str(text) {
        Ok(message) => return Ok(message),
        Err(error) => error,
    };
    if from_input {
        return Err(Trouble::usage(format!("standard input is no JSON: {error}")));
    }
    let shown = crate::text::cut(&crate::text::clean(text), SHOWN);
    let trouble = Trouble::usage(format!("`{shown}` is no JSON: {error}"));
    let is_word = text.chars().all(|c| c.is_alphanumeric() || "_-./ ".contains(c));
    Err(match text.starts_with(['{', '[', '"']) {
        false if is_word && !text.is_empty() => {
            trouble.help(format!("a string needs quotes of its own: '\"{shown}\"'"))
        }
        _ => trouble.help("quote it for the shell: '{\"key\":\"value\"}'"),
    })
}

/// Of a message that may have been told already.
pub(super) fn trouble(error: ClientError) -> Trouble {
    match error {
        ClientError::Unanswered { .. } => {
            Trouble::from(error).help("say it again if workers may hear it twice: that is not done by itself")
        }
        // Nobody is there to hear it.
        ClientError::Server { status: 409, .. } => Trouble { exit: Exit::Failed, ..error.into() },
        error => error.into(),
    }
}

/// More than can be sent.
const MOST: u64 = (16 << 20) + 64 * 1024;
const SHOWN: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str], all: bool) -> Result<Words, Trouble> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        super::read(&words, all, "send")
    }

    #[test]
    fn the_last_word_is_the_message_as_it_is_written() {
        let words = read(&["api", "jobs/2", " {\"a\" : 1.0} "], false).unwrap();
        assert_eq!(words.targets, ["api", "jobs/2"]);
        assert_eq!(words.message.get(), "{\"a\" : 1.0}");
        assert_eq!(read(&["-12"], true).unwrap().message.get(), "-12");
    }

    #[test]
    fn a_bare_word_is_told_how_to_be_quoted() {
        let trouble = read(&["api", "reload"], false).unwrap_err();
        let text = "error: `reload` is no JSON: expected value at line 1 column 1\n\
                    help: a string needs quotes of its own: '\"reload\"'";
        assert_eq!((trouble.render().as_str(), trouble.exit as u8), (text, 2));
        let trouble = read(&["api", "{a:1}"], false).unwrap_err();
        assert_eq!(trouble.help.as_deref(), Some("quote it for the shell: '{\"key\":\"value\"}'"));
    }

    #[test]
    fn a_missing_type_or_message_is_a_usage_error() {
        for (words, all) in [(&[][..], false), (&["7"], false), (&["api", "7"], true), (&[], true)] {
            assert_eq!(read(words, all).unwrap_err().exit as u8, 2, "{words:?}");
        }
    }
}
