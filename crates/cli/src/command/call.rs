//! `call`: workers are asked something.

use std::time::Duration;

use shiftboss_api::{ANSWER_MS, Answer, Answers, Question};

use super::targets::{self, Target};
use super::{Session, spoken};
use crate::args::CallArgs;
use crate::exit::{Exit, Trouble};
use crate::text;

/// Runs the verb.
pub(crate) async fn run(session: &Session<'_>, asked: &CallArgs) -> Result<Exit, Trouble> {
    let words = [asked.target.clone(), asked.message.clone()];
    let spoken::Words { targets, message } = spoken::read(&words, false, "call")?;
    let status = session.status().await?;
    let mut targets = targets::named(&targets, false, "call", true, Ok(&status))?;
    let Some(Target { name, slot }) = targets.pop() else {
        return Err(Trouble::usage("call needs a TYPE"));
    };
    // How long the workers have; the app has a little more.
    let within = session.timeout.unwrap_or(Duration::from_millis(ANSWER_MS));
    let timeout_ms = Some(u64::try_from(within.as_millis()).unwrap_or(u64::MAX));
    let question = Question { message, slot, timeout_ms };
    let answers = session.telling(session.client.call(&name, &question)).await;
    let Answers { answers } = answers.map_err(spoken::trouble)?;
    print(session, &name, &answers)?;
    let failed = answers.iter().any(|answer| answer.answer.is_none() && !answer.timed_out);
    let late = answers.iter().any(|answer| answer.timed_out);
    Ok(match (failed, late) {
        (true, _) => Exit::Failed,
        (false, true) => Exit::Busy,
        (false, false) => Exit::Done,
    })
}

fn print(session: &Session<'_>, name: &str, answers: &[Answer]) -> Result<(), Trouble> {
    let output = session.output;
    if output.json {
        let line = serde_json::to_string(&Answers { answers: answers.to_vec() })
            .map_err(|error| Trouble::new(Exit::Failed, format!("cannot be written as JSON: {error}")))?;
        return output.line(&line);
    }
    let who = |answer: &Answer| format!("{name}/{} (id {})", answer.slot, answer.worker);
    let width = answers.iter().map(|answer| who(answer).chars().count()).max().unwrap_or(0);
    for answer in answers {
        let said = match (&answer.answer, &answer.error) {
            (Some(answer), _) => text::clean(answer.get()),
            (None, Some(error)) => {
                let error = format!("{} ({})", text::clean(error), who(answer));
                output.trouble(&Trouble::new(Exit::Failed, error));
                continue;
            }
            (None, None) => continue,
        };
        output.line(&format!("{:width$}  {said}", who(answer)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, answer, json};
    use super::*;
    use crate::output::capture;
    use crate::table::tests::{broker, status, worker};

    async fn asked(answers: &str, as_json: bool) -> (Result<Exit, Trouble>, String, String) {
        let shop = json(&status(vec![broker("api", vec![worker(0, 5)])]));
        let fake = Fake::serve(vec![shop, answer("application/json", answers)]);
        let (mut output, written) = capture::output();
        output.json = as_json;
        let session = Session::new(fake.client(), None, &output);
        let exit = run(&session, &CallArgs { target: "api".into(), message: "\"ping\"".into() }).await;
        (exit, written.data(), written.talk())
    }

    #[tokio::test]
    async fn every_worker_has_a_line_and_control_characters_reach_no_terminal() {
        let answers = r#"{"answers":[{"worker":"5","slot":0,"answer":{"pong":1}},{"worker":"12","slot":1,"answer":null}]}"#;
        let (exit, data, talk) = asked(answers, false).await;
        assert_eq!(exit, Ok(Exit::Done));
        assert_eq!(
            (data.as_str(), talk.as_str()),
            ("api/0 (id 5)   {\"pong\":1}\napi/1 (id 12)  null\n", "")
        );
        let (_, data, _) = asked(&answers.replace("pong", "\u{9b}31m"), false).await;
        assert!(data.starts_with("api/0 (id 5)   {\"\u{fffd}31m\""), "{data}");
        assert_eq!(asked(answers, true).await.1, format!("{answers}\n"));
    }

    #[tokio::test]
    async fn no_answer_in_time_is_another_exit_code_than_a_failure() {
        let late = r#"{"worker":"5","slot":0,"error":"no answer within 5 s","timed_out":true}"#;
        let refused = r#"{"worker":"6","slot":1,"error":"the worker says: no"}"#;
        let (exit, data, talk) = asked(&format!(r#"{{"answers":[{late}]}}"#), false).await;
        assert_eq!((exit, data.as_str()), (Ok(Exit::Busy), ""));
        assert_eq!(talk, "error: no answer within 5 s (api/0 (id 5))\n");
        let (exit, ..) = asked(&format!(r#"{{"answers":[{late},{refused}]}}"#), false).await;
        assert_eq!(exit, Ok(Exit::Failed));
    }
}
