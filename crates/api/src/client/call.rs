//! A command on its way: given once, followed to its outcome, whatever happens to the connection.

use std::time::Duration;

use hyper::StatusCode;
use tokio::time::{Instant, timeout, timeout_at};

use super::away::Away;
use super::connection::{Answer, Ask};
use super::{Client, ClientError};
use crate::{CommandReply, Progress};

/// A command that has not been given yet: [`Call::wait`] or [`Call::send`] gives it.
#[derive(Clone, Debug)]
#[must_use = "a call does nothing until it is sent or waited for"]
pub struct Call {
    client: Client,
    ask: Ask,
    timeout: Option<Duration>,
}

impl Call {
    pub(super) fn new(client: Client, ask: Ask, timeout: Option<Duration>) -> Self {
        Call { client, ask, timeout }
    }

    /// Gives the command and follows it to its outcome.
    pub fn wait(mut self) -> CommandStream {
        self.ask.path.push_str("?wait=1");
        CommandStream {
            deadline: self.timeout.map(|timeout| Instant::now() + timeout),
            call: self,
            answer: None,
            away: Away::default(),
            over: false,
            told_id: false,
            last_seq: 0,
        }
    }

    /// Gives the command and does not wait for its outcome.
    ///
    /// # Errors
    /// When it was not taken, or nobody says so within 10 s (60 s after a lost connection; or the options' timeout, if
    /// that is shorter).
    pub async fn send(self) -> Result<CommandReply, ClientError> {
        let client = &self.client;
        let (status, text) = match self.timeout {
            None => client.whole(&self.ask).await?,
            Some(limit) => match timeout(limit, client.whole(&self.ask)).await {
                Ok(answer) => answer?,
                Err(_) => return Err(self.late(limit)),
            },
        };
        if status != StatusCode::ACCEPTED {
            return Err(client.protocol(format!("expected status 202, got {}", status.as_u16())));
        }
        serde_json::from_str(&text)
            .map_err(|error| client.protocol(format!("not a command's reply: {error}")))
    }

    fn late(&self, after: Duration) -> ClientError {
        ClientError::Timeout { socket: self.client.socket.clone(), after }
    }
}

/// What happens on behalf of a command, up to its outcome.
#[derive(Debug)]
pub struct CommandStream {
    call: Call,
    deadline: Option<Instant>,
    answer: Option<Answer>,
    away: Away,
    /// The outcome has come, or an error has ended it.
    over: bool,
    /// The first line, the request's id, has been handed out.
    told_id: bool,
    last_seq: u64,
}

impl CommandStream {
    /// The next line: first the request's id, then events, last the outcome; then none. A future that is dropped
    /// loses no line, but may give the command again, under the same key.
    ///
    /// # Errors
    /// When the command was not taken, the app is gone, the time is up or the answer makes no sense. There is no
    /// further line then.
    pub async fn next(&mut self) -> Result<Option<Progress>, ClientError> {
        let next = match self.deadline {
            None => self.advance().await,
            Some(deadline) => timeout_at(deadline, self.advance())
                .await
                .unwrap_or_else(|_| Err(self.call.late(self.call.timeout.unwrap_or_default()))),
        };
        if matches!(next, Err(_) | Ok(Some(Progress::Outcome(_)))) {
            self.over = true;
            self.answer = None;
        }
        next
    }

    async fn advance(&mut self) -> Result<Option<Progress>, ClientError> {
        while !self.over {
            let Some(answer) = &mut self.answer else {
                let Call { client, ask, .. } = &self.call;
                self.answer = Some(client.open(&mut self.away, ask, LINES).await?);
                continue;
            };
            match answer.line().await {
                Ok(Some(line)) => {
                    if let Some(progress) = self.read(&line)? {
                        return Ok(Some(progress));
                    }
                }
                Ok(None) => self.lost(),
                Err(error) if error.is_a_loss() => self.lost(),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn lost(&mut self) {
        self.answer = None;
        self.away.lost();
    }

    /// One line; none if it tells nothing new.
    fn read(&mut self, line: &str) -> Result<Option<Progress>, ClientError> {
        let progress = match serde_json::from_str::<Progress>(line) {
            Ok(progress) => progress,
            // An event that a later version knows.
            Err(_) if line.starts_with(r#"{"event":"#) => return Ok(None),
            Err(error) => return Err(self.call.client.protocol(format!("not a line of progress: {error}"))),
        };
        let repeated = match &progress {
            Progress::Request(_) => std::mem::replace(&mut self.told_id, true),
            Progress::Event(event) => event.seq <= self.last_seq,
            Progress::Outcome(_) => false,
        };
        if let Progress::Event(event) = &progress {
            self.last_seq = self.last_seq.max(event.seq);
        }
        if !repeated && !matches!(progress, Progress::Request(_)) {
            self.away.over(&self.call.client);
        }
        Ok((!repeated).then_some(progress))
    }
}

const LINES: &str = "application/x-ndjson";

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::super::fake::{Fake, Turn, json, lines};
    use super::*;
    use crate::{Outcome, Recycle, Scale};

    const DONE: &str =
        r#"{"outcome":{"result":"done","note":null,"total":2,"replaced":2,"cut":0,"refused":0}}"#;

    fn started(seq: u64) -> String {
        format!(
            r#"{{"event":{{"seq":{seq},"at":"2026-11-24T08:00:00Z","broker":"api","event":"worker_ready",
            "worker":"3","slot":0,"pid":9,"code":null,"signal":null,"forced":false,"reason":null,"request":null}}}}"#
        )
        .replace('\n', "")
    }

    async fn all(mut stream: CommandStream) -> Result<Vec<Progress>, ClientError> {
        let mut all = Vec::new();
        while let Some(progress) = stream.next().await? {
            all.push(progress);
        }
        Ok(all)
    }

    fn seqs(progress: &[Progress]) -> Vec<u64> {
        let seq = |line: &Progress| match line {
            Progress::Event(event) => Some(event.seq),
            Progress::Request(_) | Progress::Outcome(_) => None,
        };
        progress.iter().filter_map(seq).collect()
    }

    #[tokio::test]
    async fn a_waited_for_command_tells_its_id_its_events_and_its_outcome() {
        let fake = Fake::serve(vec![lines(&[r#"{"request":"k"}"#, &started(4), &started(5), DONE])]);
        let options = Options { key: Some("k".to_owned()), timeout: None };
        let client = Client::new(fake.socket());
        let call = client.recycle("api", &Recycle { slot: Some(1) }, &options).unwrap();
        let progress = all(call.wait()).await.unwrap();
        assert_eq!(progress[0], Progress::Request("k".to_owned()));
        assert_eq!(seqs(&progress), [4, 5]);
        let outcome = Outcome::Done { note: None, total: 2, replaced: 2, cut: 0, refused: 0 };
        assert_eq!(progress.last(), Some(&Progress::Outcome(outcome)));
        let asked = &fake.asked()[0];
        assert!(asked.starts_with("POST /v1/brokers/api/recycle?wait=1 HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("idempotency-key: k\r\n") && asked.ends_with(r#"{"slot":1}"#), "{asked}");
    }

    #[tokio::test]
    async fn after_a_lost_connection_the_command_is_repeated_under_the_same_key() {
        let fake = Fake::serve(vec![
            lines(&[r#"{"request":"k"}"#, &started(4)]),
            String::new(),
            lines(&[r#"{"request":"k"}"#, &started(4), &started(6), DONE]),
        ]);
        let client = Client::new(fake.socket());
        let progress = all(client.drain("api", &Options::default()).unwrap().wait()).await.unwrap();
        assert_eq!(seqs(&progress), [4, 6], "an event is told once");
        let ids = progress.iter().filter(|line| matches!(line, Progress::Request(_))).count();
        assert_eq!(ids, 1, "the id is told once");
        let key =
            |asked: &str| asked.lines().find(|line| line.starts_with("idempotency-key")).map(str::to_owned);
        let keys: Vec<_> = fake.asked().iter().map(|asked| key(asked)).collect();
        assert_eq!(keys.len(), 3);
        assert!(keys[0].is_some() && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    }

    #[tokio::test]
    async fn a_command_that_may_have_been_heard_is_repeated() {
        let fake = Fake::serve(vec![String::new(), lines(&[r#"{"request":"k"}"#, DONE])]);
        let client = Client::new(fake.socket());
        let progress = all(client.drain("api", &Options::default()).unwrap().wait()).await.unwrap();
        assert_eq!(progress.len(), 2, "the id and the outcome");
    }

    #[tokio::test]
    async fn a_command_that_never_reached_the_app_is_not_repeated() {
        let client = Client::new("/nonexistent/shop.sock");
        let error = all(client.resume("api", &crate::Resume::default(), &Options::default()).unwrap().wait())
            .await
            .unwrap_err();
        assert!(matches!(error, ClientError::NotRunning { .. }));
    }

    #[tokio::test]
    async fn an_app_that_goes_after_a_stop_is_soon_said_to_be_gone() {
        let fake = Fake::serve_and_leave(vec![lines(&[r#"{"request":"k"}"#])]);
        let mut stream = Client::new(fake.socket()).stop(&Options::default()).unwrap().wait();
        assert!(matches!(stream.next().await, Ok(Some(Progress::Request(_)))));
        assert!(matches!(stream.next().await, Err(ClientError::NotRunning { .. })));
        assert!(matches!(stream.next().await, Ok(None)), "nothing comes after an error");
    }

    #[tokio::test]
    async fn a_deadline_ends_the_wait() {
        let fake = Fake::serve_and_hold(lines(&[r#"{"request":"k"}"#]));
        let options = Options { timeout: Some(Duration::from_secs(2)), key: None };
        let mut stream = Client::new(fake.socket()).drain("api", &options).unwrap().wait();
        assert!(matches!(stream.next().await, Ok(Some(Progress::Request(_)))));
        assert!(matches!(stream.next().await, Err(ClientError::Timeout { .. })));
    }

    #[tokio::test]
    async fn an_event_of_a_later_version_is_passed_over_and_nonsense_is_not() {
        let later = started(5).replace("worker_ready", "worker_promised");
        let fake = Fake::serve(vec![lines(&[r#"{"request":"k"}"#, &later, DONE]), lines(&["{}"])]);
        let client = Client::new(fake.socket());
        let drain = || client.drain("api", &Options::default()).unwrap().wait();
        assert_eq!(all(drain()).await.unwrap().len(), 2);
        assert!(matches!(all(drain()).await, Err(ClientError::Protocol { .. })));
    }

    #[tokio::test]
    async fn without_waiting_the_request_id_is_all_that_comes_back() {
        let fake = Fake::serve(vec![json(202, r#"{"request":"k"}"#), json(200, r#"{"request":"k"}"#)]);
        let client = Client::new(fake.socket());
        let call = client.scale("api", &Scale { workers: 6 }, &Options::default()).unwrap();
        assert_eq!(call.clone().send().await.unwrap().request, "k");
        assert!(fake.asked()[0].starts_with("POST /v1/brokers/api/scale HTTP/1.1\r\n"));
        assert!(fake.asked()[0].ends_with(r#"{"workers":6}"#));
        assert!(matches!(call.send().await, Err(ClientError::Protocol { .. })));
    }

    #[tokio::test]
    async fn wherever_the_connection_breaks_the_command_reaches_its_outcome_under_one_key() {
        let whole = lines(&[r#"{"request":"k"}"#, &started(4), &started(5), DONE]);
        let body = whole.find("\r\n\r\n").unwrap() + 4;
        let last = whole.len() - 1;
        let cuts = [0, 9, body, body + 3, body + 16, body + 40, last - DONE.len(), last - 1];
        let mut turns = vec![Turn::Deaf, Turn::FirstLine];
        turns.extend(cuts.map(|cut| Turn::Answer(whole[..cut].to_owned())));
        turns.push(Turn::Answer(whole));
        let fake = Fake::turns(turns);
        let stop = Client::new(fake.socket()).stop(&Options::default()).unwrap();
        let key = stop.ask.key.clone().unwrap();
        let progress = all(stop.wait()).await.unwrap();
        assert_eq!(
            (progress.len(), seqs(&progress)),
            (4, vec![4, 5]),
            "each line is told once: {progress:?}"
        );
        let asked = fake.asked();
        assert_eq!(asked.len(), 2 + cuts.len() + 1);
        assert!(asked[2..].iter().all(|asked| asked.contains(&format!("idempotency-key: {key}\r\n"))));
    }

    #[tokio::test]
    async fn a_piece_of_an_answer_that_comes_in_pieces_may_break_anywhere() {
        let piece = |line: &str| format!("{:x}\r\n{line}\n\r\n", line.len() + 1);
        let head =
            "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";
        let whole =
            [head, &piece(r#"{"request":"k"}"#), &piece(&started(4)), &piece(DONE), "0\r\n\r\n"].concat();
        let end = whole.find(DONE).unwrap();
        // At once after a loss, so that the pauses do not add up: one cut a run.
        for cut in head.len()..end + 4 {
            let fake = Fake::serve(vec![whole[..cut].to_owned(), whole.clone()]);
            let drain = Client::new(fake.socket()).drain("api", &Options::default()).unwrap();
            let progress = all(drain.wait()).await.unwrap();
            assert_eq!((progress.len(), seqs(&progress)), (3, vec![4]), "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn without_waiting_a_command_is_repeated_until_it_is_known_to_be_taken() {
        let taken = json(202, r#"{"request":"k"}"#);
        let fake = Fake::turns(vec![Turn::FirstLine, Turn::Answer(taken[..20].into()), Turn::Answer(taken)]);
        let options = Options { timeout: None, key: Some("k".into()) };
        let call = Client::new(fake.socket()).drain("api", &options).unwrap();
        assert_eq!(call.send().await.unwrap().request, "k");
        assert!(fake.asked()[1..].iter().all(|asked| asked.contains("idempotency-key: k\r\n")));
    }

    #[tokio::test]
    async fn a_deadline_ends_an_absence_too() {
        let options = Options { timeout: Some(Duration::from_millis(50)), key: None };
        let fake = Fake::serve(vec![String::new(), String::new()]);
        let client = Client::new(fake.socket());
        let late =
            |error| matches!(error, ClientError::Timeout { after, .. } if Some(after) == options.timeout);
        assert!(late(all(client.drain("api", &options).unwrap().wait()).await.unwrap_err()));
        assert!(late(client.drain("api", &options).unwrap().send().await.unwrap_err()));
    }
}
