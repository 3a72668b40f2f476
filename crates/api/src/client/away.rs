//! The app does not answer for a while: how often it is asked again, for how long, and when it counts as gone.
//!
//! The broker process of an app can be replaced at any time. The app keeps its control socket meanwhile: a new
//! connection waits there for the successor, one that was open breaks. Nothing is asked again before a connection has
//! been lost, so that an app that does not run is told at once.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::{Client, ClientError};

/// What the owner of a client knows of the app, and wants to hear.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    /// Whether the app lives although nobody listens at its socket.
    pub(super) lives: fn(&Path) -> bool,
    /// Who is told of a long absence.
    pub(super) told: Option<Arc<Notify>>,
    /// Somebody was told of the present one, on behalf of any of the client's questions.
    pub(super) said: Arc<AtomicBool>,
    /// How long an app that has been lost may be away.
    pub(super) patience: Duration,
    /// An absence that is worth a word.
    pub(super) long: Duration,
}

/// One question's absence, if there is one.
#[derive(Debug, Default)]
pub(super) struct Away(Option<Absence>);

#[derive(Debug)]
struct Absence {
    /// When the last connection with an answer was lost; while one is there, when it began.
    since: Instant,
    /// Before the next attempt.
    pause: Duration,
}

impl Default for Owner {
    fn default() -> Self {
        Owner { lives: |_| false, told: None, said: Arc::default(), patience: PATIENCE, long: LONG }
    }
}

impl Away {
    /// An answer that had begun was lost. The first attempt after it comes at once, unless it was a short one that told
    /// nothing new: a server that dies of the question would be asked in a hot loop.
    pub(super) fn lost(&mut self) {
        let now = Instant::now();
        let absence = self.0.get_or_insert(Absence { since: now, pause: Duration::ZERO });
        if absence.since + CALM <= now {
            absence.pause = Duration::ZERO;
        }
        absence.since = now;
    }

    /// An answer begins.
    pub(super) fn heard(&mut self) {
        if let Some(absence) = &mut self.0 {
            absence.since = Instant::now();
        }
    }

    /// The app tells something new.
    pub(super) fn over(&mut self, client: &Client) {
        if self.0.take().is_some() {
            client.owner.said.store(false, Ordering::Relaxed);
        }
    }

    /// One attempt, after the pause that is due. It is bounded.
    pub(super) async fn attempt<T>(
        &mut self,
        client: &Client,
        ask: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let late = |after| ClientError::Timeout { socket: client.socket.clone(), after };
        let Some(absence) = &mut self.0 else {
            return timeout(ANSWER_WITHIN, ask).await.unwrap_or_else(|_| Err(late(ANSWER_WITHIN)));
        };
        let pause = absence.pause;
        absence.pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        let (owner, since) = (&client.owner, absence.since);
        let asked = async {
            sleep(pause).await;
            timeout_at(since + owner.patience, ask).await.unwrap_or_else(|_| Err(late(owner.patience)))
        };
        tokio::pin!(asked);
        tokio::select! {
            biased;
            answer = &mut asked => return answer,
            () = sleep_until(since + owner.long) => owner.tell(),
        }
        asked.await
    }

    /// Whether it is worth another attempt after this failure; a lost connection begins an absence.
    pub(super) fn goes_on_after(&mut self, client: &Client, error: &ClientError) -> bool {
        let owner = &client.owner;
        let patient = self.0.as_ref().map(|absence| absence.since.elapsed() < owner.patience);
        match error {
            ClientError::Io { .. } if error.is_a_loss() => {
                if self.0.is_none() {
                    self.lost();
                }
                patient.unwrap_or(true)
            }
            ClientError::Io { .. } => patient.unwrap_or(false),
            ClientError::NotRunning { socket, .. } => patient.unwrap_or(false) && (owner.lives)(socket),
            ClientError::NotPermitted { .. }
            | ClientError::Server { .. }
            | ClientError::Protocol { .. }
            | ClientError::Unanswered { .. }
            | ClientError::Timeout { .. } => false,
        }
    }
}

impl Owner {
    fn tell(&self) {
        if let Some(told) = &self.told
            && !self.said.swap(true, Ordering::Relaxed)
        {
            told.notify_one();
        }
    }
}

/// How long an app that was never lost may take to begin its answer.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(60);
const LONG: Duration = Duration::from_secs(1);
/// An answer that lasted so long is no part of a hot loop.
const CALM: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::fake::{Fake, Turn, beside, json};
    use super::*;

    const STATUS: &str = r#"{"app":"shop"}"#;

    fn client(fake: &Fake) -> Client {
        Client::new(fake.socket())
    }

    /// With its length, so that half of it is known to be half.
    fn measured() -> String {
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{STATUS}")
    }

    #[tokio::test]
    async fn a_question_is_asked_again_wherever_its_connection_broke() {
        let whole = measured();
        let mut turns = vec![Turn::Deaf, Turn::FirstLine];
        turns.extend([0, 5, 30, whole.len() - 3].map(|cut| Turn::Answer(whole[..cut].to_owned())));
        turns.push(Turn::Answer(whole));
        let fake = Fake::turns(turns);
        assert_eq!(client(&fake).status_json().await.unwrap(), STATUS);
        assert_eq!(fake.asked().len(), 7);
    }

    #[tokio::test]
    async fn an_app_that_was_never_lost_is_asked_once() {
        let client = Client::new("/nonexistent/shiftboss/shop.sock").lives(|_| true);
        assert!(matches!(client.status_json().await, Err(ClientError::NotRunning { .. })));
    }

    #[tokio::test]
    async fn where_nobody_listens_after_a_loss_there_is_no_app() {
        let fake = Fake::serve_and_leave(vec![String::new()]);
        assert!(matches!(client(&fake).status_json().await, Err(ClientError::NotRunning { .. })));
    }

    #[tokio::test]
    async fn an_app_that_lives_is_asked_until_it_listens_again() {
        let fake = Fake::serve_and_leave(vec![String::new()]);
        let lives = |socket: &Path| {
            // Looked at a first time; the successor comes before the second look.
            if beside(socket).exists() {
                let _ = std::fs::remove_file(beside(socket));
                std::fs::rename(socket.with_extension("next"), socket).unwrap();
                return true;
            }
            std::fs::write(beside(socket), "").is_ok()
        };
        let next = Fake::serve(vec![json(200, STATUS)]);
        std::fs::rename(next.socket(), fake.socket().with_extension("next")).unwrap();
        assert_eq!(client(&fake).lives(lives).status_json().await.unwrap(), STATUS);
    }

    #[tokio::test]
    async fn an_app_that_lives_and_stays_away_is_given_up() {
        let fake = Fake::serve_and_leave(vec![String::new()]);
        let mut client = client(&fake).lives(|_| true);
        client.owner.patience = Duration::from_millis(60);
        assert!(matches!(client.status_json().await, Err(ClientError::NotRunning { .. })));
        let fake = Fake::serve(vec![String::new()]);
        client.socket = fake.socket().to_owned();
        let error = client.status_json().await.unwrap_err();
        assert!(
            matches!(error, ClientError::Timeout { after, .. } if after == client.owner.patience),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_long_absence_is_told_once_and_the_next_one_again() {
        let told = Arc::new(Notify::new());
        for _ in 0..2 {
            let turns = vec![Turn::Answer(String::new()), Turn::Late(measured())];
            let fake = Fake::turns(turns);
            let mut client = client(&fake).tells(Arc::clone(&told));
            client.owner.long = Duration::ZERO;
            let hears = async {
                told.notified().await;
                std::fs::write(fake.beside(), "").unwrap();
            };
            let (status, ()) = tokio::join!(client.status_json(), hears);
            assert_eq!(status.unwrap(), STATUS);
            assert!(!client.owner.said.load(Ordering::Relaxed), "the next absence is another");
        }
    }

    #[tokio::test]
    async fn a_short_absence_is_not_worth_a_word() {
        let told = Arc::new(Notify::new());
        let fake = Fake::serve(vec![String::new(), measured()]);
        let mut client = client(&fake).tells(Arc::clone(&told));
        client.owner.long = Duration::from_secs(60);
        client.status_json().await.unwrap();
        let heard = timeout(Duration::ZERO, told.notified()).await;
        assert!(heard.is_err());
    }

    #[tokio::test]
    async fn the_first_attempt_comes_at_once_and_pauses_grow() {
        let mut away = Away::default();
        let mut pauses = Vec::new();
        away.lost();
        let client = Client::new("/nonexistent/shop.sock");
        for _ in 0..4 {
            pauses.push(away.0.as_ref().unwrap().pause.as_millis());
            let none = async { Err::<(), _>(client.protocol(String::new())) };
            away.attempt(&client, none).await.unwrap_err();
        }
        assert_eq!(pauses, [0, 10, 20, 40]);
        away.0.as_mut().unwrap().since = Instant::now();
        away.lost();
        assert_eq!(away.0.as_ref().unwrap().pause.as_millis(), 80, "a short answer is no reason to be quick");
        away.0.as_mut().unwrap().since -= CALM;
        away.lost();
        assert_eq!(away.0.as_ref().unwrap().pause.as_millis(), 0);
    }
}
