//! Writes down every call of core: a JSON line for the app's beginning, then one for each step. Enough to judge
//! afterwards, without core, whether the promises were kept; what to judge is left to whoever reads it.
//!
//! There is no value of an environment in it: core knows none.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use shiftboss_core::spec::BrokerSpec;
use shiftboss_core::time::Time;
use shiftboss_core::{Effect, Input};

/// A file that grows by a line a step, each in one write(2): whoever is killed loses a part of the last line at most.
pub(crate) struct Trace {
    file: File,
    line: Vec<u8>,
}

/// Why no trace can be written.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be opened or written.
    #[error("cannot write the trace {}: {source}", path.display())]
    Os {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Another app writes to it, and their lines would be mixed.
    #[error("cannot write the trace {}: another app writes to it", path.display())]
    Taken {
        /// The file.
        path: PathBuf,
    },
}

/// An input as it is written down: taken before core consumes it.
pub(crate) type Heard = serde_json::Result<Box<RawValue>>;

impl Trace {
    /// Appends to this file, which is made when it is not there (mode 0600), and begins with these brokers. What it
    /// held stays.
    pub(crate) fn begin(path: &Path, brokers: &[BrokerSpec]) -> Result<Trace, TraceError> {
        let failed = |source| TraceError::Os { path: path.to_owned(), source };
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            // Nobody is waited for, were it a pipe (fifo(7)), and no terminal becomes ours.
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_file() && matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)) {
            return Err(TraceError::Taken { path: path.to_owned() });
        }
        let mut trace = Trace { file, line: Vec::new() };
        if metadata.len() > 0 {
            // The last writer may have been killed within a line.
            trace.line.push(b'\n');
        }
        let line = Line::Begin { trace: FORMAT, version: env!("CARGO_PKG_VERSION"), brokers };
        trace.write(&line).map_err(failed)?;
        Ok(trace)
    }

    /// The input of the next step.
    pub(crate) fn hear(input: &Input) -> Heard {
        to_raw_value(input)
    }

    /// Core was called. After an error the file may end within a line, and nothing may follow.
    pub(crate) fn step(
        &mut self,
        now: Time,
        input: Option<Heard>,
        effects: &[Effect],
        deadline: Option<Time>,
    ) -> io::Result<()> {
        let input = input.transpose()?;
        self.write(&Line::Step { now, input: input.as_deref(), effects, deadline })
    }

    fn write(&mut self, line: &Line<'_>) -> io::Result<()> {
        serde_json::to_writer(&mut self.line, line)?;
        self.line.push(b'\n');
        let written = loop {
            match self.file.write(&self.line) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                written => break written?,
            }
        };
        if written < self.line.len() {
            return Err(io::Error::new(io::ErrorKind::WriteZero, "only a part of a line was taken"));
        }
        self.line.clear();
        Ok(())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Line<'a> {
    Begin {
        trace: u32,
        version: &'a str,
        brokers: &'a [BrokerSpec],
    },
    Step {
        now: Time,
        /// None at the start.
        input: Option<&'a RawValue>,
        effects: &'a [Effect],
        deadline: Option<Time>,
    },
}

/// The format of the lines.
const FORMAT: u32 = 1;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn lines(path: &Path) -> Vec<String> {
        std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn every_step_is_in_the_file_as_soon_as_it_is_told_and_only_we_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        let mut trace = Trace::begin(&path, &[]).unwrap();
        assert_eq!(lines(&path).len(), 1);
        trace.step(Time(5), None, &[], Some(Time(7))).unwrap();
        trace.step(Time(7), Some(Trace::hear(&Input::Tick)), &[], None).unwrap();
        let written = lines(&path);
        assert_eq!(written[1], r#"{"step":{"now":5,"input":null,"effects":[],"deadline":7}}"#);
        assert_eq!(written[2], r#"{"step":{"now":7,"input":"Tick","effects":[],"deadline":null}}"#);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_line_that_was_cut_off_does_not_spoil_what_comes_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        std::fs::write(&path, "{\"step\":").unwrap();
        Trace::begin(&path, &[]).unwrap();
        let written = lines(&path);
        assert_eq!(written[0], "{\"step\":");
        assert!(written[1].starts_with("{\"begin\":"), "{written:?}");
    }

    #[test]
    fn two_apps_do_not_write_to_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        let first = Trace::begin(&path, &[]).unwrap();
        assert!(matches!(Trace::begin(&path, &[]), Err(TraceError::Taken { .. })));
        drop(first);
        Trace::begin(&path, &[]).unwrap();
    }

    #[test]
    fn a_full_disk_is_an_error_that_names_the_file() {
        let error = Trace::begin(Path::new("/dev/full"), &[]).err().unwrap().to_string();
        assert!(error.starts_with("cannot write the trace /dev/full: No space left"), "{error}");
    }
}
