//! Writes down every call of core: a JSON line for the app's beginning, then one for each step. Enough to judge
//! afterwards, without core, whether the promises were kept; what to judge is left to whoever reads it.
//!
//! A successor that goes on with an app goes on with its file, cut back to the steps that were recorded.
//!
//! There is no value of an environment in it: core knows none.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use shiftboss_core::spec::BrokerSpec;
use shiftboss_core::time::Time;
use shiftboss_core::{Adoption, Effect, Input};

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
    /// It does not hold the run that is to go on.
    #[error("cannot go on with the trace {}: its last run has {has} steps instead of {needs}", path.display())]
    Short {
        /// The file.
        path: PathBuf,
        /// Steps of its last run.
        has: u64,
        /// Steps that were recorded.
        needs: u64,
    },
}

/// An input as it is written down: taken before core consumes it.
pub(crate) type Heard = serde_json::Result<Box<RawValue>>;

impl Trace {
    /// Appends to this file, which is made when it is not there (mode 0600), and begins with these brokers. What it
    /// held stays.
    pub(crate) fn begin(path: &Path, brokers: &[BrokerSpec]) -> Result<Trace, TraceError> {
        let failed = |source| TraceError::Os { path: path.to_owned(), source };
        let (file, metadata) = open(path, OpenOptions::new().append(true).create(true))?;
        let mut trace = Trace { file, line: Vec::new() };
        if metadata.len() > 0 {
            // The last writer may have been killed within a line.
            trace.line.push(b'\n');
        }
        let line = Line::Begin { trace: FORMAT, version: env!("CARGO_PKG_VERSION"), brokers };
        trace.write(&line).map_err(failed)?;
        Ok(trace)
    }

    /// Goes on with the last run in this file, of whose steps so many were recorded: what follows them is cut off. A
    /// step must be written down before it is recorded, so that there are never fewer.
    pub(crate) fn go_on(path: &Path, steps: u64) -> Result<Trace, TraceError> {
        let failed = |source| TraceError::Os { path: path.to_owned(), source };
        let (file, _) = open(path, OpenOptions::new().append(true).read(true))?;
        let mut lines = BufReader::new(&file);
        let (mut at, mut end, mut has) = (0, None, 0);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = lines.read_until(b'\n', &mut line).map_err(failed)?;
            if read == 0 || !line.ends_with(b"\n") {
                break;
            }
            at += read as u64;
            if line.starts_with(BEGIN) {
                (has, end) = (0, None);
            } else if line.len() > 1 {
                has += 1;
                end = if has == steps { Some(at) } else { end };
            }
        }
        let short = TraceError::Short { path: path.to_owned(), has, needs: steps };
        file.set_len(end.ok_or(short)?).map_err(failed)?;
        Ok(Trace { file, line: Vec::new() })
    }

    /// Another process goes on with the app: instead of an input.
    pub(crate) fn adopt(
        &mut self,
        now: Time,
        how: Adoption,
        effects: &[Effect],
        deadline: Option<Time>,
    ) -> io::Result<()> {
        self.write(&Line::Adopt { now, salvaged: how == Adoption::Salvage, effects, deadline })
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

/// Opens it for us alone.
fn open(path: &Path, options: &mut OpenOptions) -> Result<(File, Metadata), TraceError> {
    let failed = |source| TraceError::Os { path: path.to_owned(), source };
    // Nobody is waited for, were it a pipe (fifo(7)), and no terminal becomes ours.
    let options = options.mode(0o600).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_file() && matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)) {
        return Err(TraceError::Taken { path: path.to_owned() });
    }
    Ok((file, metadata))
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Line<'a> {
    Begin {
        trace: u32,
        version: &'a str,
        brokers: &'a [BrokerSpec],
    },
    Adopt {
        now: Time,
        salvaged: bool,
        effects: &'a [Effect],
        deadline: Option<Time>,
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
const FORMAT: u32 = 2;
/// How the line of a beginning starts.
const BEGIN: &[u8] = b"{\"begin\":";

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
    fn whoever_goes_on_with_an_app_cuts_off_the_steps_that_were_not_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        for _ in 0..2 {
            let mut trace = Trace::begin(&path, &[]).unwrap();
            for now in 1..=4 {
                trace.step(Time(now), None, &[], None).unwrap();
            }
        }
        let whole = lines(&path);
        std::fs::write(&path, whole.join("\n") + "\n{\"step\":").unwrap();
        let mut trace = Trace::go_on(&path, 3).unwrap();
        trace.adopt(Time(9), Adoption::Whole, &[], None).unwrap();
        let after = lines(&path);
        assert_eq!(after[..whole.len() - 1], whole[..whole.len() - 1]);
        assert_eq!(
            after[whole.len() - 1..],
            [r#"{"adopt":{"now":9,"salvaged":false,"effects":[],"deadline":null}}"#]
        );
        drop(trace);
        let error = Trace::go_on(&path, 5).err().unwrap().to_string();
        assert!(error.ends_with("its last run has 4 steps instead of 5"), "{error}");
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
