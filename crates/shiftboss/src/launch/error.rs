//! Why no worker of a broker could be started, and what to do about it.

use std::path::PathBuf;

use crate::os::spawn::LookUpError;

/// Why no worker of these options could be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The program is missing or cannot be run.
    #[error("broker `{broker}`: {source}")]
    Program {
        /// Whose.
        broker: String,
        /// Why.
        source: LookUpError,
    },
    /// The command is empty.
    #[error("broker `{broker}`: the command is empty")]
    Empty {
        /// Whose.
        broker: String,
    },
    /// The working directory is missing.
    #[error("broker `{broker}`: cannot work in `{}`: {source}", cwd.display())]
    Directory {
        /// Whose.
        broker: String,
        /// Where it should work.
        cwd: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Node is too old to be driven.
    #[error("broker `{broker}`: `{program}` is Node {version}: 18 or newer is needed")]
    OldNode {
        /// Whose.
        broker: String,
        /// Which program.
        program: String,
        /// As it says itself.
        version: String,
    },
    /// A text holds a NUL byte, which no argument or variable can.
    #[error("broker `{broker}`: `{what}` holds a NUL byte")]
    Nul {
        /// Whose.
        broker: String,
        /// Which word or variable.
        what: String,
    },
}

impl LaunchError {
    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        match self {
            LaunchError::Program { source: LookUpError::NotFound { .. }, .. } => {
                Some("no shell is involved: give the program's path, or correct PATH".to_owned())
            }
            LaunchError::Program { source: LookUpError::NotExecutable(file), .. } => {
                Some(format!("`chmod +x {}`", file.display()))
            }
            LaunchError::OldNode { .. } => Some("name a newer one in `command`, by its path".to_owned()),
            LaunchError::Program {
                source:
                    LookUpError::Missing(_) | LookUpError::IsDirectory(_) | LookUpError::Unreachable { .. },
                ..
            }
            | LaunchError::Empty { .. }
            | LaunchError::Directory { .. }
            | LaunchError::Nul { .. } => None,
        }
    }
}
