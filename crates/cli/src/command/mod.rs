//! One verb a file, and what those that ask a running app share.

pub(crate) mod call;
pub(crate) mod check;
pub(crate) mod completions;
mod configuration;
pub(crate) mod demo;
pub(crate) mod drain;
pub(crate) mod events;
mod follow;
pub(crate) mod man;
pub(crate) mod recycle;
pub(crate) mod resume;
pub(crate) mod run;
pub(crate) mod scale;
pub(crate) mod send;
mod spoken;
pub(crate) mod status;
pub(crate) mod stop;
mod targets;
pub(crate) mod upgrade;
pub(crate) mod wait;

use std::sync::Arc;
use std::time::{Duration, Instant};

use shiftboss::os::instance::holder_of;
use shiftboss_api::Status;
use shiftboss_api::client::{Client, ClientError, Options};
use tokio::sync::Notify;

use crate::args::Global;
use crate::exit::{Exit, Trouble};
use crate::find;
use crate::output::Output;
use crate::text;

/// A verb that asks a running app.
pub(crate) struct Session<'a> {
    client: Client,
    timeout: Option<Duration>,
    output: &'a Output,
    /// Told when the app's broker process is away for long.
    away: Arc<Notify>,
}

impl<'a> Session<'a> {
    fn new(client: Client, timeout: Option<Duration>, output: &'a Output) -> Self {
        let away = Arc::new(Notify::new());
        let client = client.lives(|socket| holder_of(socket).is_some()).tells(Arc::clone(&away));
        Session { client, timeout, output, away }
    }

    fn options(&self) -> Options {
        Options { timeout: self.timeout, key: None }
    }

    /// The app as it is now.
    async fn status(&self) -> Result<Status, Trouble> {
        self.in_time(self.client.status()).await
    }

    /// The answer, and a line of talk for every long absence of the broker process until it comes.
    async fn telling<T>(&self, answer: impl Future<Output = T>) -> T {
        tokio::pin!(answer);
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                () = self.away.notified() => self.output.say(AWAY),
            }
        }
    }

    /// The answer, unless `--timeout` comes first.
    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, ClientError>>) -> Result<T, Trouble> {
        self.in_time_or(answer, Trouble::from).await
    }

    /// The same with other words for what goes wrong.
    async fn in_time_or<T>(
        &self,
        answer: impl Future<Output = Result<T, ClientError>>,
        trouble: impl FnOnce(ClientError) -> Trouble,
    ) -> Result<T, Trouble> {
        let answer = self.telling(answer);
        let Some(limit) = self.timeout else { return answer.await.map_err(trouble) };
        match tokio::time::timeout(limit, answer).await {
            Ok(answer) => answer.map_err(trouble),
            Err(_) => {
                let socket = self.client.socket().to_owned();
                Err(ClientError::Timeout { socket, after: limit }.into())
            }
        }
    }
}

/// Runs a verb that asks the app which the command line means.
pub(crate) fn ask(
    global: &Global,
    output: &Output,
    verb: impl AsyncFnOnce(&Session) -> Result<Exit, Trouble>,
) -> Result<Exit, Trouble> {
    let began = Instant::now();
    let socket = find::socket(global)?;
    output.tell(|| match holder_of(&socket) {
        Some(pid) => format!("asks {}, the app is pid {pid}", socket.display()),
        None => format!("asks {}", socket.display()),
    });
    let session = Session::new(Client::new(socket), global.timeout, output);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Trouble::new(Exit::Failed, format!("cannot start: {error}")))?;
    let exit = runtime.block_on(verb(&session));
    output.tell(|| format!("took {}", text::took(began.elapsed())));
    exit
}

/// Said of a long absence.
const AWAY: &str = "the broker process is being replaced; asking again";

#[cfg(test)]
mod fake {
    //! For tests: an app that gives canned answers, one a connection.

    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;

    use shiftboss_api::client::Client;

    pub(super) struct Fake {
        folder: tempfile::TempDir,
        _listener: Option<UnixListener>,
    }

    impl Fake {
        /// It listens and never answers.
        pub(super) fn silent() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let listener = UnixListener::bind(folder.path().join("fake.sock")).unwrap();
            Fake { folder, _listener: Some(listener) }
        }

        /// It is gone after the last answer.
        pub(super) fn serve(answers: Vec<String>) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let listener = UnixListener::bind(folder.path().join("fake.sock")).unwrap();
            std::thread::spawn(move || {
                for answer in answers {
                    let (mut stream, _) = listener.accept().unwrap();
                    // A request of these tests comes in one piece.
                    let _ = stream.read(&mut [0; 4096]);
                    let _ = stream.write_all(answer.as_bytes());
                }
            });
            Fake { folder, _listener: None }
        }

        pub(super) fn client(&self) -> Client {
            Client::new(self.folder.path().join("fake.sock"))
        }
    }

    pub(super) fn answer(content_type: &str, body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nConnection: close\r\n\r\n{body}")
    }

    pub(super) fn json(body: &impl serde::Serialize) -> String {
        answer("application/json", &serde_json::to_string(body).unwrap())
    }

    pub(super) fn progress(lines: &[shiftboss_api::Progress]) -> String {
        let lines: Vec<String> =
            lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect();
        answer("application/x-ndjson", &lines.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::capture;

    #[tokio::test]
    async fn a_long_absence_is_a_line_of_talk() {
        let (output, written) = capture::output();
        let session = Session::new(Client::new("/nonexistent/shop.sock"), None, &output);
        session.away.notify_one();
        let until_said = async {
            while written.talk().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        session.telling(until_said).await;
        assert_eq!((written.talk(), written.data()), (format!("{AWAY}\n"), String::new()));
    }
}
