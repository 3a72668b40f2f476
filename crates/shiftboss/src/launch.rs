//! How a worker of a broker is launched: program, arguments, environment and descriptors, prepared once.
//!
//! Everything that can be wrong is found by [`Launch::prepare`], before anything is started. The system calls are
//! in `os::spawn`.

mod error;

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shiftboss_channel::node;
use shiftboss_core::id::{Generation, Slot, WorkerId};

use crate::channel::Tongue;
use crate::extend::{Execution, Launcher, WorkerInfo};
use crate::guess;
use crate::options::{BrokerOptions, Kind, Ready, Serialization};
use crate::os::leftovers;
use crate::os::rlimit::Nofile;
use crate::os::spawn::{self, Child, Program, Start};

pub use error::LaunchError;

/// A broker's workers, ready to be started.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Launch {
    program: OsString,
    arguments: Vec<String>,
    cwd: Option<PathBuf>,
    /// Inherited and ours, without what is set by the options.
    environment: Vec<(OsString, OsString)>,
    /// Set by the options; the slot is put in.
    own: BTreeMap<String, String>,
    /// Names of the listeners a worker is given, in order.
    listeners: Vec<String>,
    notifies: bool,
    /// The line that tells a worker to leave.
    notice: String,
    #[serde(default = "ours")]
    tongue: Tongue,
    #[serde(default)]
    hung_after: Option<Duration>,
    /// A Node program loads lines of ours before its own.
    #[serde(default)]
    preload: bool,
    nofile: Option<Nofile>,
}

/// As records of versions have it that knew no other.
fn ours() -> Tongue {
    Tongue::Ours
}

/// What differs from worker to worker.
pub(crate) struct Particulars<'a> {
    /// Has the last word.
    pub(crate) launcher: Option<&'a dyn Launcher>,
    pub(crate) broker: &'a str,
    pub(crate) worker: WorkerId,
    /// None of a standby.
    pub(crate) slot: Option<Slot>,
    pub(crate) generation: Generation,
    pub(crate) listeners: &'a [BorrowedFd<'a>],
    pub(crate) stdout: BorrowedFd<'a>,
    pub(crate) stderr: BorrowedFd<'a>,
    pub(crate) notify: Option<&'a Path>,
    /// What a Node program loads before its own.
    pub(crate) preload: Option<&'a Path>,
    pub(crate) channel: BorrowedFd<'a>,
    /// Under a keeper: what makes it the keeper's child.
    pub(crate) keeper: Option<spawn::Keeper>,
}

impl Launch {
    /// All that keeps workers of these options from being started.
    pub(crate) fn problems(broker: &str, options: &BrokerOptions) -> Vec<LaunchError> {
        let prepare = |options: &BrokerOptions| Launch::prepare(broker, "default", options, None).err();
        let Some(first) = prepare(options) else { return Vec::new() };
        // A program that is not sought in the folder can be looked for although that is missing.
        let is_elsewhere = |program: &String| program.starts_with('/') || !program.contains('/');
        let more = match &first {
            LaunchError::Directory { .. } if options.command.first().is_some_and(is_elsewhere) => {
                prepare(&BrokerOptions { cwd: None, ..options.clone() })
            }
            _ => None,
        };
        [first].into_iter().chain(more).collect()
    }

    /// Looks up the program and builds what all workers share.
    pub(crate) fn prepare(
        broker: &str,
        environment_name: &str,
        options: &BrokerOptions,
        nofile: Option<Nofile>,
    ) -> Result<Launch, LaunchError> {
        let name = || broker.to_owned();
        let Some((program, arguments)) = options.command.split_first() else {
            return Err(LaunchError::Empty { broker: name() });
        };
        if let Some(cwd) = &options.cwd {
            let met = std::fs::metadata(cwd).and_then(|met| {
                if met.is_dir() { Ok(()) } else { Err(std::io::ErrorKind::NotADirectory.into()) }
            });
            met.map_err(|source| LaunchError::Directory { broker: name(), cwd: cwd.clone(), source })?;
        }
        let words =
            options.command.iter().chain(options.environment.keys()).chain(options.environment.values());
        let mut words = words.into_iter();
        if let Some(word) = words.find(|word| word.contains('\0')) {
            return Err(LaunchError::Nul { broker: name(), what: word.replace('\0', "\\0") });
        }
        let path = options.environment.get("PATH").map(OsString::from).or_else(|| std::env::var_os("PATH"));
        let program = spawn::look_up(program, path.as_deref(), options.cwd.as_deref())
            .map_err(|source| LaunchError::Program { broker: name(), source })?;
        if options.kind == Kind::Node
            && let Some(version) = guess::version(&program).filter(guess::Version::is_too_old)
        {
            let program = program.display().to_string();
            return Err(LaunchError::OldNode { broker: name(), program, version: version.to_string() });
        }
        let mut environment = if options.clean_environment { BTreeMap::new() } else { inherited() };
        environment.retain(|key, _| key.to_str().is_none_or(|key| !options.environment.contains_key(key)));
        environment.insert("worker_type".into(), broker.into());
        environment.insert("env".into(), environment_name.into());
        Ok(Launch {
            program: program.into_os_string(),
            arguments: arguments.to_vec(),
            cwd: options.cwd.clone(),
            environment: environment.into_iter().collect(),
            own: options
                .environment
                .iter()
                .filter(|(key, _)| !is_private(key) && !["worker_type", "env"].contains(&key.as_str()))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            listeners: match options.kind {
                // Asked for, one by one.
                Kind::Node => Vec::new(),
                Kind::Notify | Kind::Plain | Kind::Worker => {
                    options.listen.iter().map(|listen| listen.name.clone()).collect()
                }
            },
            notifies: match options.kind {
                Kind::Notify => true,
                Kind::Plain => options.effective_ready() == Ready::Notify,
                Kind::Node | Kind::Worker => false,
            },
            notice: options.notice.to_string(),
            hung_after: options.hung_after,
            preload: options.kind == Kind::Node && options.preload,
            tongue: match (options.kind, options.serialization) {
                (Kind::Node, Serialization::Json) => Tongue::Node,
                (Kind::Node, Serialization::Advanced) => Tongue::NodeAdvanced,
                (Kind::Notify | Kind::Plain | Kind::Worker, _) => Tongue::Ours,
            },
            nofile,
        })
    }

    /// Puts a variable into the environment of its workers that says of which run they are.
    pub(crate) fn mark(&mut self, mark: &OsStr) {
        self.environment.push((leftovers::VARIABLE.into(), mark.to_owned()));
    }

    /// Whether its workers get a `NOTIFY_SOCKET`.
    pub(crate) fn notifies(&self) -> bool {
        self.notifies
    }

    /// The line that tells its workers to leave.
    pub(crate) fn notice(&self) -> &str {
        &self.notice
    }

    /// As whose workers they speak.
    pub(crate) fn tongue(&self) -> Tongue {
        self.tongue
    }

    /// Whether a worker loads lines of ours before its own.
    pub(crate) fn preloads(&self) -> bool {
        self.preload
    }

    /// After how long of silence a worker's event loop hangs.
    pub(crate) fn hung_after(&self) -> Option<Duration> {
        self.hung_after
    }

    /// The program as found, for people.
    pub(crate) fn program(&self) -> &Path {
        Path::new(&self.program)
    }

    /// Whether its workers outlive us if we are killed: the kernel takes the death signal from programs that gain rights
    /// by being executed (`PR_SET_PDEATHSIG` in prctl(2)).
    pub(crate) fn outlives_us(&self) -> bool {
        let mode = std::fs::metadata(&self.program).map_or(0, |file| file.permissions().mode());
        let capable = rustix::fs::getxattr(&self.program, "security.capability", &mut [0_u8; 64]).is_ok();
        mode & (SET_USER | SET_GROUP) != 0 || capable
    }

    /// Starts one worker.
    ///
    /// # Errors
    /// Why not, in words.
    pub(crate) fn start(&self, worker: &Particulars<'_>) -> Result<Child, String> {
        // What would need it is refused for standbys: see [`Launch::prepare`].
        let slot = worker.slot.map_or(String::new(), |slot| slot.to_string());
        let fill = |text: &OsStr| c_string(replace(text.as_bytes(), b"{slot}", slot.as_bytes()));
        let mut argv = vec![c_string(self.program.as_bytes().to_vec())];
        argv.extend(self.arguments.iter().map(|word| fill(OsStr::new(word))));
        let mut environment: Vec<CString> = self
            .environment
            .iter()
            .map(|(key, value)| c_string([key.as_bytes(), value.as_bytes()].join(&b'=')))
            .collect();
        let own = self.own.iter().map(|(key, value)| fill(OsStr::new(&format!("{key}={value}"))));
        environment.extend(own);
        let mut set = |key: &str, value: &OsStr| {
            environment.push(c_string([key.as_bytes(), b"=", value.as_bytes()].concat()));
        };
        set("SHIFTBOSS_WORKER_ID", OsStr::new(&worker.worker.to_string()));
        set("SHIFTBOSS_GENERATION", OsStr::new(&worker.generation.to_string()));
        if worker.slot.is_some() {
            set("SHIFTBOSS_SLOT", OsStr::new(&slot));
        }
        if let Some(path) = worker.preload {
            add_option(&mut environment, path);
        }
        let mut set = |key: &str, value: &OsStr| {
            environment.push(c_string([key.as_bytes(), b"=", value.as_bytes()].concat()));
        };
        if let Some(path) = worker.notify {
            set("NOTIFY_SOCKET", path.as_os_str());
        }
        let listeners = if self.tongue.is_node() { &[] } else { worker.listeners };
        let channel = crate::os::activation::FIRST + RawFd::try_from(listeners.len()).unwrap_or(RawFd::MAX);
        match self.tongue {
            Tongue::Ours => set(shiftboss_channel::VARIABLE, OsStr::new(&channel.to_string())),
            Tongue::Node | Tongue::NodeAdvanced => {
                let is_json = self.tongue == Tongue::Node;
                set(node::CHANNEL_FD, OsStr::new(&channel.to_string()));
                set(node::SERIALIZATION, OsStr::new(if is_json { "json" } else { "advanced" }));
                set(node::UNIQUE_ID, OsStr::new(&worker.worker.to_string()));
            }
        }
        if !listeners.is_empty() {
            for (key, value) in crate::os::activation::variables(&self.listeners) {
                set(key, OsStr::new(&value));
            }
        }
        let mut descriptors: Vec<(BorrowedFd<'_>, RawFd)> = vec![(worker.stdout, 1), (worker.stderr, 2)];
        descriptors.extend(listeners.iter().copied().zip(crate::os::activation::FIRST..));
        descriptors.push((worker.channel, channel));
        let mut path = c_string(self.program.as_bytes().to_vec());
        if let Some(launcher) = worker.launcher {
            path = self.reconsider(launcher, worker, &mut argv, &mut environment)?;
        }
        let program = Program {
            path,
            argv,
            cwd: self.cwd.as_ref().map(|cwd| c_string(cwd.as_os_str().as_bytes().to_vec())),
        };
        spawn::spawn(&Start {
            program: &program,
            environment: &environment,
            descriptors: &descriptors,
            listen_pid: !listeners.is_empty(),
            nofile: self.nofile,
            death_signal: true,
            keeper: worker.keeper,
        })
        .map_err(|error| error.to_string())
    }

    /// A launcher changes what is executed; the path of the program that it is then.
    fn reconsider(
        &self,
        launcher: &dyn Launcher,
        worker: &Particulars<'_>,
        argv: &mut Vec<CString>,
        environment: &mut Vec<CString>,
    ) -> Result<CString, String> {
        let info = WorkerInfo {
            worker_type: worker.broker.to_owned(),
            id: worker.worker.to_string(),
            slot: worker.slot.map(|slot| slot.0),
            pid: 0,
        };
        let words = argv.iter().map(|word| word.to_string_lossy().into_owned());
        let mut execution = Execution::new(words.collect());
        launcher.prepare(&info, &mut execution)?;
        let program = execution.command.first().ok_or("the launcher has left no command")?;
        let search = std::env::var_os("PATH");
        let path = spawn::look_up(program, search.as_deref(), self.cwd.as_deref())
            .map_err(|error| error.to_string())?;
        *argv = execution.command.iter().map(|word| c_string(word.clone().into_bytes())).collect();
        for (key, value) in &execution.environment {
            let prefix = format!("{key}=");
            environment.retain(|word| !word.as_bytes().starts_with(prefix.as_bytes()));
            environment.push(c_string(format!("{prefix}{value}").into_bytes()));
        }
        Ok(c_string(path.into_os_string().into_encoded_bytes()))
    }
}

/// Adds the file to those that Node is told to load first (`NODE_OPTIONS`, node(1)), after whatever it is told already.
fn add_option(environment: &mut Vec<CString>, file: &Path) {
    const NAME: &[u8] = b"NODE_OPTIONS=";
    let at = environment.iter().position(|word| word.as_bytes().starts_with(NAME));
    let mut word = at.map_or_else(|| NAME.to_vec(), |at| environment.swap_remove(at).into_bytes());
    if word.len() > NAME.len() {
        word.push(b' ');
    }
    word.extend([b"--require=\"", file.as_os_str().as_bytes(), b"\""].concat());
    environment.push(c_string(word));
}

/// Our environment without what is ours alone or another parent's (`sd_notify(3)`, Node's channel).
fn inherited() -> BTreeMap<OsString, OsString> {
    std::env::vars_os().filter(|(key, _)| !is_private(&key.to_string_lossy())).collect()
}

fn is_private(key: &str) -> bool {
    key == "NOTIFY_SOCKET"
        || key == "NODE_UNIQUE_ID"
        || ["LISTEN_", "WATCHDOG_", "NODE_CHANNEL_", "SHIFTBOSS_"]
            .iter()
            .any(|prefix| key.starts_with(prefix))
}

fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// NUL bytes were refused by [`Launch::prepare`] and cannot come from the OS; one more would end the text early.
fn c_string(bytes: Vec<u8>) -> CString {
    CString::new(bytes).unwrap_or_else(|error| {
        let end = error.nul_position();
        let mut bytes = error.into_vec();
        bytes.truncate(end);
        CString::new(bytes).unwrap_or_default()
    })
}

// inode(7).
const SET_USER: u32 = 0o4000;
const SET_GROUP: u32 = 0o2000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_does_not_inherit_what_is_meant_for_us() {
        for key in
            ["LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET", "WATCHDOG_USEC", "NODE_CHANNEL_FD", "SHIFTBOSS_X"]
        {
            assert!(is_private(key), "{key}");
        }
        for key in ["PATH", "HOME", "LISTENER", "NODE_ENV", "NODE_OPTIONS"] {
            assert!(!is_private(key), "{key}");
        }
    }

    #[test]
    fn what_is_ours_to_set_is_not_taken_from_a_programs_options() {
        let mut options = BrokerOptions::new(["true"]);
        for key in ["NOTIFY_SOCKET", "SHIFTBOSS_KEEPER", "worker_type", "env", "LEVEL"] {
            options.environment.insert(key.to_owned(), "theirs".to_owned());
        }
        let launch = Launch::prepare("shop", "live", &options, None).unwrap();
        assert_eq!(launch.own.keys().collect::<Vec<_>>(), ["LEVEL"]);
        let of = |key: &str| launch.environment.iter().find(|(name, _)| name == key).map(|(_, value)| value);
        assert_eq!((of("worker_type").unwrap(), of("env").unwrap()), (&"shop".into(), &"live".into()));
    }

    #[test]
    fn the_slot_is_put_in_wherever_it_is_named() {
        assert_eq!(replace(b"80{slot}-{slot}", b"{slot}", b"12"), b"8012-12");
        assert_eq!(replace(b"plain", b"{slot}", b"1"), b"plain");
        assert_eq!(replace(b"{slot}", b"{slot}", b""), b"");
    }
}
