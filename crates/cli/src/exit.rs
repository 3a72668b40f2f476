//! How a verb ends: the exit codes that scripts rely on, and what is said when it goes wrong.

use std::io::Write as _;
use std::process::ExitCode;

use shiftboss::os::instance::holder_of;
use shiftboss_api::client::ClientError;

/// The exit codes. 69, 75, 77 and 78 have the meaning they have in `sysexits.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// What was asked for is so.
    Done = 0,
    /// It ran and failed.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// `--check`: something is not as wanted.
    NotAsWanted = 3,
    /// No app answers.
    NoApp = 69,
    /// Busy, or not done in time.
    Busy = 75,
    /// Not allowed.
    NotAllowed = 77,
    /// The configuration is invalid.
    Config = 78,
    /// Left by Ctrl-C.
    Interrupted = 130,
}

/// A last line on standard error. If it cannot be written, nobody is left who could be told.
pub(crate) fn last_word(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// What went wrong: printed once, by `main`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// The exit code.
    pub(crate) exit: Exit,
    /// Which, what, why; empty when all has been said.
    pub(crate) error: String,
    /// Further facts, one a line; a line that begins with a space belongs to the one above.
    pub(crate) details: Vec<String>,
    /// What to do next.
    pub(crate) help: Option<String>,
}

impl Trouble {
    /// Trouble without details and help.
    pub(crate) fn new(exit: Exit, error: impl Into<String>) -> Self {
        Trouble { exit, error: error.into(), details: Vec::new(), help: None }
    }

    /// The command line makes no sense.
    pub(crate) fn usage(error: impl Into<String>) -> Self {
        Trouble::new(Exit::Usage, error)
    }

    /// The same with advice.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// As it is printed: `error: …`, the details in a frame, the help. No line ends the text.
    pub(crate) fn render(&self) -> String {
        if self.details.is_empty() {
            let help = self.help.iter().map(|help| format!("\nhelp: {}", help.replace('\n', "\n      ")));
            return format!("error: {}{}", self.error, help.collect::<String>());
        }
        let mut text = format!("error: {}", self.error);
        for detail in &self.details {
            text.push_str(match detail.strip_prefix(' ') {
                Some(_) => "\n   │  ",
                None => "\n   ├ ",
            });
            text.push_str(detail);
        }
        if let Some(help) = &self.help {
            text.push_str("\n   └ help: ");
            text.push_str(&help.replace('\n', "\n           "));
        }
        text
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        let text = error.to_string();
        match error {
            ClientError::NotRunning { socket, .. } => match holder_of(&socket) {
                Some(pid) => {
                    let error =
                        format!("the app runs as pid {pid}, but nobody answers at {}", socket.display());
                    Trouble::new(Exit::NoApp, error).help(format!(
                        "if the socket is gone: `kill -TERM {pid}` ends the app gracefully, then start it again"
                    ))
                }
                None => Trouble::new(Exit::NoApp, text)
                    .help("`shiftboss run` starts one here; --socket PATH or --app NAME asks another"),
            },
            ClientError::NotPermitted { .. } => Trouble::new(Exit::NotAllowed, text).help(WHO_MAY_ASK),
            ClientError::Server { status, failure } => {
                let exit = exit_of(status);
                let help =
                    failure.help.or_else(|| (exit == Exit::NotAllowed).then(|| WHO_MAY_ASK.to_owned()));
                Trouble { help, ..Trouble::new(exit, failure.error) }
            }
            ClientError::Protocol { .. } => Trouble::new(Exit::Failed, text)
                .help("the app may run another version of shiftboss: see `shiftboss status`"),
            ClientError::Io { .. } | ClientError::Unanswered { .. } => Trouble::new(Exit::Failed, text),
            ClientError::Timeout { .. } => Trouble::new(Exit::Busy, text),
        }
    }
}

/// Of a refusal's HTTP status.
fn exit_of(status: u16) -> Exit {
    match status {
        404 => Exit::Usage,
        403 => Exit::NotAllowed,
        409 | 429 => Exit::Busy,
        503 => Exit::NoApp,
        _ => Exit::Failed,
    }
}

const WHO_MAY_ASK: &str = "only the app's own user and root may ask it";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_followed_by_its_help() {
        let trouble = Trouble::usage("api has no slot 9").help("first line\nsecond line");
        assert_eq!(trouble.render(), "error: api has no slot 9\nhelp: first line\n      second line");
    }

    #[test]
    fn details_stand_in_a_frame() {
        let mut trouble = Trouble::new(Exit::Failed, "it stopped").help("mend it");
        trouble.details = vec!["last lines of worker 7".into(), " Error: no".into(), "still serving".into()];
        let expected = "error: it stopped
   ├ last lines of worker 7
   │   Error: no
   ├ still serving
   └ help: mend it";
        assert_eq!(trouble.render(), expected);
    }

    #[test]
    fn a_refusal_keeps_the_servers_help_and_gets_the_documented_code() {
        let failure = shiftboss_api::Failure { error: "no".into(), help: Some("ask root".into()) };
        for (status, exit) in [(400, 1), (403, 77), (404, 2), (409, 75), (503, 69), (500, 1)] {
            let trouble = Trouble::from(ClientError::Server { status, failure: failure.clone() });
            assert_eq!((trouble.exit as u8, trouble.help.as_deref()), (exit, Some("ask root")), "{status}");
        }
    }

    #[test]
    fn every_client_error_gets_the_documented_code() {
        let socket = std::path::PathBuf::from("/run/x.sock");
        let absent = ClientError::NotRunning { socket: socket.clone(), why: "no such file" };
        assert_eq!(Trouble::from(absent).exit, Exit::NoApp);
        assert_eq!(
            Trouble::from(ClientError::NotPermitted { socket: socket.clone() }).exit,
            Exit::NotAllowed
        );
        let late = ClientError::Timeout { socket, after: std::time::Duration::from_secs(1) };
        assert_eq!(Trouble::from(late).exit, Exit::Busy);
    }
}
