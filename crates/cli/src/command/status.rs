//! `status`: the app as it is now, for people and for scripts.

use jiff::Timestamp;
use shiftboss_api::{Broker, Status};

use super::{Session, targets};
use crate::args::StatusArgs;
use crate::exit::{Exit, Trouble};
use crate::table;

/// Runs the verb.
pub(crate) async fn run(session: &Session<'_>, asked: &StatusArgs) -> Result<Exit, Trouble> {
    let json = session.in_time(session.client.status_json()).await?;
    let status: Status = serde_json::from_str(&json)
        .map_err(|error| Trouble::new(Exit::Failed, format!("the app's status makes no sense: {error}")))?;
    let shown: Vec<&Broker> = match asked.types.as_slice() {
        [] => status.brokers.iter().collect(),
        types => {
            let known = types.iter().enumerate().filter(|(at, name)| !types[..*at].contains(name));
            known.map(|(_, name)| targets::find(&status, name)).collect::<Result<_, _>>()?
        }
    };
    if session.output.json {
        session.output.line(&if asked.types.is_empty() { json } else { only(&json, &asked.types)? })?;
    } else {
        for line in table::render(&status, &shown, session.output.out, Timestamp::now()) {
            session.output.line(&line)?;
        }
    }
    let as_wanted = shown.iter().all(|broker| table::is_as_wanted(broker));
    Ok(if asked.check && !as_wanted { Exit::NotAsWanted } else { Exit::Done })
}

/// The server's JSON with these brokers only, and every field of theirs.
fn only(json: &str, types: &[String]) -> Result<String, Trouble> {
    let wrong = |error| Trouble::new(Exit::Failed, format!("the app's status makes no sense: {error}"));
    let mut status: serde_json::Value = serde_json::from_str(json).map_err(wrong)?;
    if let Some(brokers) = status.get_mut("brokers").and_then(|brokers| brokers.as_array_mut()) {
        brokers.retain(|broker| types.iter().any(|name| broker["type"] == **name));
    }
    serde_json::to_string(&status).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::super::AWAY;
    use super::super::fake::{Fake, answer, json};
    use super::*;
    use crate::output::capture;
    use crate::table::tests::{broker, status, worker};

    fn shop() -> Status {
        let mut jobs = broker("jobs", vec![worker(0, 6)]);
        jobs.ready = 0;
        status(vec![broker("api", vec![worker(0, 5)]), jobs])
    }

    async fn exit(types: &[&str], check: bool) -> Result<Exit, Trouble> {
        let (output, _) = capture::output();
        let fake = Fake::serve(vec![json(&shop())]);
        let types = types.iter().map(|&name| name.to_owned()).collect();
        run(&Session::new(fake.client(), None, &output), &StatusArgs { types, check }).await
    }

    #[tokio::test]
    async fn check_looks_at_what_is_shown() {
        assert_eq!(exit(&[], true).await, Ok(Exit::NotAsWanted));
        assert_eq!(exit(&[], false).await, Ok(Exit::Done));
        assert_eq!(exit(&["api"], true).await, Ok(Exit::Done));
        assert_eq!(exit(&["jobs"], true).await, Ok(Exit::NotAsWanted));
        assert_eq!(exit(&["apy"], true).await.unwrap_err().exit, Exit::Usage);
    }

    #[tokio::test]
    async fn json_is_the_servers_own() {
        let (mut output, written) = capture::output();
        output.json = true;
        let body = serde_json::to_string(&shop()).unwrap().replacen('{', "{ \"later\": 1,", 1);
        let fake = Fake::serve(vec![answer("application/json", &body)]);
        let asked = StatusArgs { types: Vec::new(), check: false };
        run(&Session::new(fake.client(), None, &output), &asked).await.unwrap();
        assert_eq!(written.data(), format!("{body}\n"));
    }

    #[tokio::test]
    async fn a_type_that_is_named_twice_is_shown_once() {
        let (output, written) = capture::output();
        let fake = Fake::serve(vec![json(&shop())]);
        let asked = StatusArgs { types: ["jobs", "api", "jobs"].map(str::to_owned).into(), check: false };
        run(&Session::new(fake.client(), None, &output), &asked).await.unwrap();
        let heads = written.data().lines().filter(|line| line.contains("/1 ready")).count();
        assert_eq!(heads, 2, "{}", written.data());
    }

    #[test]
    fn json_of_some_brokers_keeps_their_fields() {
        let json = r#"{"app":"shop","brokers":[{"type":"api","later":1},{"type":"jobs"}]}"#;
        let only = only(json, &["api".to_owned()]).unwrap();
        assert_eq!(only, r#"{"app":"shop","brokers":[{"later":1,"type":"api"}]}"#);
    }

    #[tokio::test]
    async fn an_answer_that_breaks_is_asked_for_again() {
        let (output, written) = capture::output();
        let whole = json(&shop());
        let fake = Fake::serve(vec![String::new(), whole[..20].to_owned(), whole]);
        let asked = StatusArgs { types: Vec::new(), check: false };
        let session = Session::new(fake.client(), None, &output);
        assert_eq!(run(&session, &asked).await, Ok(Exit::Done));
        assert_eq!(
            written.talk().replace(&format!("{AWAY}\n"), ""),
            "",
            "nobody need know, unless it takes long"
        );
    }
}
