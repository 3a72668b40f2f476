//! Why the app could not be asked.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Failure;

/// Why there is no answer, or not the wanted one.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at the socket: it does not exist, or nobody listens (`ENOENT`, `ECONNREFUSED`).
    #[error("no app answers at {} ({why})", socket.display())]
    NotRunning {
        /// Where it was asked.
        socket: PathBuf,
        /// How it is known.
        why: &'static str,
    },
    /// The socket belongs to somebody else (`EACCES`).
    #[error("{}: permission denied", socket.display())]
    NotPermitted {
        /// Where it was asked.
        socket: PathBuf,
    },
    /// The app answered with a refusal.
    #[error("{}", failure.error)]
    Server {
        /// The HTTP status, 4xx or 5xx.
        status: u16,
        /// Its words.
        failure: Failure,
    },
    /// What came back is not what the control API says.
    #[error("the answer from {} makes no sense: {why}", socket.display())]
    Protocol {
        /// Where it was asked.
        socket: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The connection failed in another way, or was lost in the middle of an answer.
    #[error("{doing} {}: {source}", socket.display())]
    Io {
        /// What was being done, such as "cannot connect to".
        doing: &'static str,
        /// Where it was asked.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection was lost before the answer to a message or question came, which may have been told and is not
    /// told again.
    #[error("the connection to {} was lost before it said whom it has told: perhaps all, perhaps nobody", socket.display())]
    Unanswered {
        /// Where it was asked.
        socket: PathBuf,
    },
    /// There was no answer, or no outcome, in time.
    #[error("no answer from {} within {after:?}", socket.display())]
    Timeout {
        /// Where it was asked.
        socket: PathBuf,
        /// How long was waited.
        after: Duration,
    },
}

impl ClientError {
    pub(super) fn of_connect(socket: &Path, source: io::Error) -> Self {
        let socket = socket.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => ClientError::NotRunning { socket, why: "no such file" },
            io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning { socket, why: "nobody listens there" }
            }
            io::ErrorKind::PermissionDenied => ClientError::NotPermitted { socket },
            _ => ClientError::Io { doing: "cannot connect to", socket, source },
        }
    }

    pub(super) fn of_hyper(socket: &Path, error: hyper::Error) -> Self {
        let socket = socket.to_owned();
        if error.is_parse() {
            return ClientError::Protocol { socket, why: error.to_string() };
        }
        ClientError::Io { doing: LOST, socket, source: io::Error::other(error) }
    }

    /// There was a connection and it broke: the question may have been heard, and may be asked again.
    pub(super) fn is_a_loss(&self) -> bool {
        matches!(self, ClientError::Io { doing: LOST, .. })
    }
}

const LOST: &str = "lost the connection to";
