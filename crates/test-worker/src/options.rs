//! The flags, from the command line and from the environment, and their help.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Everything that can be asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) ready: Ready,
    pub(crate) ready_after: Option<Duration>,
    pub(crate) exit: Option<u8>,
    pub(crate) exit_after: Option<Duration>,
    pub(crate) signal_self: Option<i32>,
    pub(crate) ignore_term: bool,
    pub(crate) stop_delay: Option<Duration>,
    pub(crate) fork_child: bool,
    pub(crate) setsid_child: bool,
    pub(crate) print: u64,
    pub(crate) print_bytes: usize,
    pub(crate) flood_output: bool,
    pub(crate) close_stdout: bool,
    pub(crate) http: bool,
    pub(crate) first_line: bool,
    pub(crate) first_line_to: Option<PathBuf>,
    pub(crate) touch: Option<PathBuf>,
    pub(crate) require_file: Option<PathBuf>,
    pub(crate) env: bool,
    pub(crate) fds: bool,
    pub(crate) sigmask: bool,
}

/// How it says that it is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ready {
    /// `READY=1` to `NOTIFY_SOCKET`.
    Notify,
    #[default]
    None,
}

impl Options {
    /// Those of this process: the words of `TEST_WORKER_ARGS`, then the arguments. `None`: help is asked for.
    pub(crate) fn of_process() -> Result<Option<Options>, String> {
        let environment = env::var("TEST_WORKER_ARGS").unwrap_or_default();
        let words = environment.split_whitespace().map(OsString::from);
        Options::parse(words.chain(env::args_os().skip(1)))
    }

    /// A flag given twice counts as given last.
    pub(crate) fn parse(mut words: impl Iterator<Item = OsString>) -> Result<Option<Options>, String> {
        let mut options = Options::default();
        while let Some(word) = words.next() {
            let flag = word.to_str().unwrap_or_default();
            let mut value = || words.next().ok_or_else(|| format!("{flag} needs a value"));
            match flag {
                "--help" | "-h" => return Ok(None),
                "--ready" => options.ready = ready(&value()?)?,
                "--ready-after" => {
                    options.ready = Ready::Notify;
                    options.ready_after = Some(ms(flag, &value()?)?);
                }
                "--exit" => options.exit = Some(number(flag, &value()?)?),
                "--exit-after" => options.exit_after = Some(ms(flag, &value()?)?),
                "--signal-self" => options.signal_self = Some(number(flag, &value()?)?),
                "--ignore-term" => options.ignore_term = true,
                "--stop-delay" => options.stop_delay = Some(ms(flag, &value()?)?),
                "--fork-child" => options.fork_child = true,
                "--setsid-child" => options.setsid_child = true,
                "--print" => options.print = number(flag, &value()?)?,
                "--print-bytes" => options.print_bytes = number(flag, &value()?)?,
                "--flood-output" => options.flood_output = true,
                "--close-stdout" => options.close_stdout = true,
                "--http" => options.http = true,
                "--first-line" => options.first_line = true,
                "--first-line-to" => options.first_line_to = Some(value()?.into()),
                "--touch" => options.touch = Some(value()?.into()),
                "--require-file" => options.require_file = Some(value()?.into()),
                "--env" => options.env = true,
                "--fds" => options.fds = true,
                "--sigmask" => options.sigmask = true,
                _ => return Err(format!("unknown argument {word:?}; --help lists them")),
            }
        }
        Ok(Some(options))
    }

    /// From ready to the end, when an end is asked for.
    pub(crate) fn ends_after(&self) -> Option<Duration> {
        let asked = self.exit.is_some() || self.signal_self.is_some() || self.exit_after.is_some();
        asked.then(|| self.exit_after.unwrap_or(Duration::ZERO))
    }
}

fn ready(word: &OsString) -> Result<Ready, String> {
    match word.to_str() {
        Some("notify") => Ok(Ready::Notify),
        Some("none") => Ok(Ready::None),
        _ => Err(format!("--ready is notify or none, not {word:?}")),
    }
}

fn number<T: FromStr>(flag: &str, word: &OsString) -> Result<T, String> {
    let number = word.to_str().and_then(|text| text.parse().ok());
    number.ok_or_else(|| format!("{flag} needs a number that fits, not {word:?}"))
}

fn ms(flag: &str, word: &OsString) -> Result<Duration, String> {
    number(flag, word).map(Duration::from_millis)
}

/// What `--help` prints.
pub(crate) const HELP: &str = "\
A worker that misbehaves on request. Sleeps until SIGTERM, then exits 0, unless told otherwise.

Usage: test-worker [FLAG...]     (flags in TEST_WORKER_ARGS, split at spaces, come first)

In the order in which they act:
  --require-file FILE  Exits 1 with `Error: FILE is missing` when it is
  --sigmask            Prints the signal sets as inherited: `SigBlk`, `SigIgn`, `SigCgt` as in
                       /proc/PID/status (Rust itself ignores SIGPIPE and catches SIGSEGV and SIGBUS)
  --ignore-term        Ignores SIGTERM, as will its children
  --fork-child         Leaves a child in its process group that sleeps for 10 minutes and holds the
                       inherited descriptors; prints `child PID`
  --setsid-child       The same in a session of its own
  --first-line         Prints `ready PID NS`, NS = CLOCK_MONOTONIC in ns, as its first line
  --first-line-to FILE Appends that line to FILE, such as a FIFO, instead
  --env                Prints its environment, sorted, a line a variable
  --fds                Prints its descriptors, a line each: `NUMBER TARGET`
  --touch FILE         Creates FILE, or empties it
  --print N            Prints N lines: `line 1` and so on
  --print-bytes N      Prints N bytes without a line end
  --close-stdout       Closes its standard output
  --ready-after MS     Waits; means `--ready notify`
  --ready notify|none  Sends READY=1 to NOTIFY_SOCKET (default: none)
  --http               Answers `ok PID` to any GET request on the sockets of LISTEN_FDS, one a
                       connection; on SIGTERM stops accepting and finishes what it has accepted
  --flood-output       Prints lines of 4 KiB without end
  --exit-after MS      From ready to its end (default with --exit and --signal-self: 0)
  --signal-self N      Sends itself signal N, at its default action; exits if that does not kill it
  --exit CODE          Exits with CODE (default: 0)

When told to leave:
  --stop-delay MS      From SIGTERM to its exit with 0
";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Options>, String> {
        Options::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn every_flag_of_the_help_is_known() {
        let flags = HELP.lines().filter_map(|line| line.strip_prefix("  --")?.split_whitespace().next());
        let flags: Vec<_> = flags.collect();
        assert!(flags.len() > 15);
        for flag in flags {
            let parsed = parse(&format!("--{flag} 1")).or_else(|_| parse(&format!("--{flag}")));
            let parsed = parsed.or_else(|_| parse(&format!("--{flag} none")));
            assert!(parsed.is_ok(), "{flag}: {parsed:?}");
        }
    }

    #[test]
    fn a_missing_or_senseless_value_is_an_error() {
        for line in ["--exit", "--exit 256", "--exit-after soon", "--ready maybe", "--nonsense", "stray"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn an_end_is_asked_for_by_any_flag_that_names_one() {
        let ends = |line: &str| parse(line).unwrap().unwrap().ends_after();
        assert_eq!(ends(""), None);
        assert_eq!(ends("--exit 3"), Some(Duration::ZERO));
        assert_eq!(ends("--signal-self 9 --exit-after 20"), Some(Duration::from_millis(20)));
    }
}
