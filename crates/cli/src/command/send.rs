//! `send`: workers are told something.

use serde_json::value::RawValue;
use shiftboss_api::{Message, Told, Untold};

use super::targets::{self, Target};
use super::{Session, spoken};
use crate::args::SendArgs;
use crate::exit::{Exit, Trouble};
use crate::text;

/// Runs the verb.
pub(crate) async fn run(session: &Session<'_>, asked: &SendArgs) -> Result<Exit, Trouble> {
    let spoken::Words { targets, message } = spoken::read(&asked.words, asked.all, "send")?;
    let status = session.status().await?;
    let targets = targets::named(&targets, asked.all, "send", true, Ok(&status))?;
    let mut exit = Exit::Done;
    for target in targets {
        match tell(session, &target, message.clone()).await {
            Ok(told) => print(session, &target, &told)?,
            // The others are told all the same.
            Err(trouble) if trouble.exit == Exit::Failed => {
                session.output.trouble(&trouble);
                exit = Exit::Failed;
            }
            Err(trouble) => return Err(trouble),
        }
    }
    Ok(exit)
}

async fn tell(session: &Session<'_>, target: &Target, message: Box<RawValue>) -> Result<Told, Trouble> {
    let body = Message { message, slot: target.slot };
    session.in_time_or(session.client.send(&target.name, &body), spoken::trouble).await
}

fn print(session: &Session<'_>, target: &Target, told: &Told) -> Result<(), Trouble> {
    let output = session.output;
    let Told { told: count, untold } = told;
    if output.json {
        let line = serde_json::json!({"broker": target.name, "told": count, "untold": untold});
        return output.line(&line.to_string());
    }
    for Untold { worker, slot, reason } in untold {
        output.say(&format!("{}/{slot} (id {worker}) was not told: {}", target.name, text::clean(reason)));
    }
    let all = u64::from(*count) + untold.len() as u64;
    let name = match target.slot {
        Some(slot) => format!("{}/{slot}", target.name),
        None => target.name.clone(),
    };
    output.line(&match untold.len() {
        0 => format!("Told {name}: {}.", text::count(*count, "worker")),
        _ => format!("Told {name}: {count} of {}.", text::count(all, "worker")),
    })
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, answer, json};
    use super::*;
    use crate::output::capture;
    use crate::table::tests::{broker, status, worker};

    fn words(words: &[&str]) -> SendArgs {
        SendArgs { words: words.iter().map(|&word| word.to_owned()).collect(), all: false }
    }

    fn shop() -> String {
        json(&status(vec![broker("api", vec![worker(0, 5)]), broker("jobs", vec![])]))
    }

    fn refused() -> String {
        answer("application/json", r#"{"error":"`jobs` has no worker at the moment"}"#)
            .replace("200 OK", "409 Conflict")
    }

    #[tokio::test]
    async fn it_says_how_many_were_told_and_who_was_not() {
        let all = Told { told: 4, untold: Vec::new() };
        let one =
            Told { told: 3, untold: vec![Untold { worker: "7".into(), slot: 1, reason: "full".into() }] };
        let fake = Fake::serve(vec![shop(), json(&all), json(&one)]);
        let (output, written) = capture::output();
        let session = Session::new(fake.client(), None, &output);
        let exit = run(&session, &words(&["api", "jobs", "{\"a\":1}"])).await;
        assert_eq!(exit, Ok(Exit::Done));
        assert_eq!(written.data(), "Told api: 4 workers.\nTold jobs: 3 of 4 workers.\n");
        assert_eq!(written.talk(), "jobs/1 (id 7) was not told: full\n");
    }

    #[tokio::test]
    async fn nobody_told_is_a_failure_and_the_others_are_told_all_the_same() {
        let fake = Fake::serve(vec![shop(), refused(), json(&Told { told: 1, untold: Vec::new() })]);
        let (mut output, written) = capture::output();
        output.json = true;
        let session = Session::new(fake.client(), None, &output);
        let exit = run(&session, &words(&["jobs", "api", "7"])).await;
        assert_eq!(exit, Ok(Exit::Failed));
        assert_eq!(written.data(), "{\"broker\":\"api\",\"told\":1,\"untold\":[]}\n");
        assert_eq!(written.talk(), "error: `jobs` has no worker at the moment\n");
    }

    #[tokio::test]
    async fn a_lost_connection_is_not_asked_again() {
        let told = json(&Told { told: 1, untold: Vec::new() });
        let fake = Fake::serve(vec![shop(), String::new(), told]);
        let (output, _) = capture::output();
        let session = Session::new(fake.client(), None, &output);
        assert_eq!(run(&session, &words(&["api", "7"])).await, Ok(Exit::Failed));
    }
}
