//! What `check --explain` prints: every key of every broker with its value, and where the value is from.
//!
//! The text is a configuration file of the same meaning, but for the values of environments and the program's
//! settings, which are never shown.

use std::fmt::Write;

use serde_json::Value;
use shiftboss_core::spec::{Ask, Drained, Ready, StopLadder};

use super::value::show_duration;
use super::{Lines, Loaded};
use crate::address::{Address, Balance};
use crate::options::{BrokerOptions, Kind, Serialization, UpgradeWhen};

pub(super) fn explain(loaded: &Loaded) -> String {
    let Loaded { options, lines, .. } = loaded;
    let mut page = Page { text: String::new(), lines, broker: "" };
    page.line("app", &quoted(&options.app), "the directory's name");
    let upgrade = match options.upgrade {
        UpgradeWhen::Asked => "asked",
        UpgradeWhen::Auto => "auto",
    };
    page.line("upgrade", &quoted(upgrade), "default");
    for (name, broker) in &options.brokers {
        page.broker(name, broker);
    }
    page.settings(loaded);
    page.text
}

struct Page<'l> {
    text: String,
    lines: &'l Lines,
    broker: &'l str,
}

impl<'l> Page<'l> {
    fn broker(&mut self, name: &'l str, options: &BrokerOptions) {
        self.broker = name;
        self.write(&format!("\n[broker.{name}]"), "");
        self.line("command", &array(&options.command), "default");
        self.line("kind", kind(options.kind), "default, guessed from the command");
        self.line("workers", &options.workers.to_string(), "default");
        self.line("standby", &options.standby.to_string(), "default");
        self.line("listen", &listen(options), "default");
        let origin = self.origin("ready", default_ready(options));
        let origin = self.origin("ready.after", &origin);
        self.write(&format!("ready = {}", ready(options.effective_ready())), &origin);
        self.recycle(options);
        self.line("stop", &stop(&options.stop, &options.notice), "default");
        self.duration("backoff.base", options.backoff.base);
        self.duration("backoff.cap", options.backoff.cap);
        self.duration("backoff.healthy_after", options.backoff.healthy_after);
        self.line("drained", drained(options.drained), "default");
        if options.kind == Kind::Node {
            let serialization = match options.serialization {
                Serialization::Json => "\"json\"",
                Serialization::Advanced => "\"advanced\"",
            };
            self.line("serialization", serialization, "default");
            self.line("preload", &options.preload.to_string(), "default");
            match options.hung_after {
                Some(wait) => self.duration("hung_after", wait),
                None => self.line("hung_after", "\"never\"", "default"),
            }
        }
        self.clock_and_files(options);
        match &options.cwd {
            Some(cwd) => self.line("cwd", &quoted(&cwd.to_string_lossy()), "default"),
            None => self.write("# cwd", "default: that of shiftboss"),
        }
        self.environment(options);
        self.line("clean_environment", &options.clean_environment.to_string(), "default");
    }

    fn recycle(&mut self, options: &BrokerOptions) {
        let recycle = &options.recycle;
        match recycle.every {
            Some(every) => self.duration("recycle.every", every),
            None => self.write("# recycle.every", "default: only when asked"),
        }
        self.line("recycle.jitter", &format!("\"{:.0}%\"", recycle.jitter * 100.0), "default");
        self.line("recycle.surge", &recycle.surge.to_string(), "default");
        self.line("recycle.unavailable", &recycle.unavailable.to_string(), "default");
        self.duration("recycle.min_ready", recycle.min_ready);
        self.duration("recycle.deadline", recycle.deadline);
    }

    #[cfg_attr(
        not(any(feature = "schedule", feature = "watch")),
        expect(unused_variables, clippy::unused_self, reason = "neither is there")
    )]
    fn clock_and_files(&mut self, options: &BrokerOptions) {
        #[cfg(feature = "schedule")]
        match &options.schedule {
            Some(schedule) => {
                self.line("schedule.open", &quoted(schedule.open()), "default");
                self.line("schedule.close", &quoted(schedule.close()), "default");
                match schedule.timezone() {
                    Some(zone) => self.line("schedule.timezone", &quoted(zone), "default"),
                    None => self.write("# schedule.timezone", "default: that of the system"),
                }
            }
            None => self.write("# schedule", "default: always open"),
        }
        #[cfg(feature = "watch")]
        match &options.watch {
            Some(watch) => {
                let origin = self.origin("watch", "default");
                self.line("watch.paths", &array(watch.paths()), &origin);
                self.duration("watch.debounce", watch.quiet_for());
            }
            None => self.write("# watch", "default: no files"),
        }
    }

    fn environment(&mut self, options: &BrokerOptions) {
        if options.environment.is_empty() {
            return self.line("environment", "{}", "default");
        }
        for name in options.environment.keys() {
            let origin = self.origin(&format!("environment.{name}"), "default");
            self.write(&format!("# environment.{}", key(name)), &format!("{origin}, value not shown"));
        }
    }

    fn settings(&mut self, loaded: &Loaded) {
        let lines = &loaded.settings.lines;
        if !lines.is_empty() {
            self.write("\n[settings]", "");
        }
        // Of a table its keys are enough.
        let below = |path: &str| lines.range(format!("{path}.")..).next();
        let leaf =
            |path: &&String| below(path).is_none_or(|(next, _)| !next.starts_with(&format!("{path}.")));
        for path in lines.keys().filter(|path| !path.is_empty()).filter(leaf) {
            let path_shown: Vec<String> = path.split('.').map(key).collect();
            let note = format!("line {}, value not shown", lines[path]);
            self.write(&format!("# {}", path_shown.join(".")), &note);
        }
    }

    fn duration(&mut self, key: &str, duration: std::time::Duration) {
        self.line(key, &quoted(&show_duration(duration)), "default");
    }

    /// A key and its value; `default` says where the value is from if the file has none.
    fn line(&mut self, key: &str, value: &str, default: &str) {
        let origin = self.origin(key, default);
        self.write(&format!("{key} = {value}"), &origin);
    }

    fn write(&mut self, left: &str, note: &str) {
        let note = if note.is_empty() { String::new() } else { format!("  # {note}") };
        // A string takes whatever is written to it.
        let _ = match note.as_str() {
            "" => writeln!(self.text, "{left}"),
            note => writeln!(self.text, "{left:NOTES$}{note}"),
        };
    }

    fn origin(&self, key: &str, default: &str) -> String {
        match self.lines.get(&(self.broker.to_owned(), key.to_owned())) {
            Some(line) => format!("line {line}"),
            None => default.to_owned(),
        }
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Notify => "\"notify\"",
        Kind::Plain => "\"plain\"",
        Kind::Node => "\"node\"",
        // Only programs that use the library have such.
        Kind::Worker => "a worker of this program",
    }
}

fn ready(ready: Ready) -> String {
    match ready {
        Ready::Notify => "\"notify\"".to_owned(),
        Ready::Listening => "\"listening\"".to_owned(),
        Ready::Accepting => "\"accepting\"".to_owned(),
        Ready::After(wait) => format!("{{ after = \"{}\" }}", show_duration(wait)),
    }
}

fn default_ready(options: &BrokerOptions) -> &'static str {
    match (options.kind, options.listen.is_empty()) {
        (Kind::Node, _) => "default of kind \"node\"",
        (Kind::Notify | Kind::Worker, _) => "default of kind \"notify\"",
        (Kind::Plain, true) => "default without listeners",
        (Kind::Plain, false) => "default with these listeners",
    }
}

fn drained(drained: Drained) -> &'static str {
    match drained {
        Drained::Refuse => "\"refuse\"",
        Drained::Hold => "\"hold\"",
    }
}

fn listen(options: &BrokerOptions) -> String {
    let all = options.listen.iter().map(|listen| {
        // The default name is the address as it was written, which may differ from how it is printed.
        let is_written = listen.name.parse().is_ok_and(|written: Address| written == listen.address);
        let balance = match listen.balance {
            Balance::Shared if is_written => return quoted(&listen.name),
            Balance::Shared => "",
            Balance::RoundRobin => ", balance = \"round-robin\"",
            Balance::Lanes => ", balance = \"lanes\"",
        };
        let name = quoted(&listen.name);
        if is_written {
            // An address has what a name must not have.
            format!("{{ address = {name}{balance} }}")
        } else {
            format!("{{ name = {name}, address = {}{balance} }}", quoted(&listen.address.to_string()))
        }
    });
    format!("[{}]", all.collect::<Vec<_>>().join(", "))
}

fn stop(ladder: &StopLadder, notice: &Value) -> String {
    let words = notice.as_str().map_or_else(|| notice.to_string(), str::to_owned);
    let rungs = ladder.0.iter().map(|rung| {
        let how = match rung.ask {
            Ask::Notice => format!("message = {}", quoted(&words)),
            Ask::Signal(signal) => {
                let signal = signal.to_string();
                format!("signal = \"{}\"", signal.strip_prefix("SIG").unwrap_or(&signal))
            }
        };
        format!("{{ {how}, wait = \"{}\" }}, ", show_duration(rung.wait))
    });
    format!("[{}{{ signal = \"KILL\" }}]", rungs.collect::<String>())
}

fn array(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", "))
}

/// A basic string of TOML: one line, nothing in it that could steer a terminal.
fn quoted(text: &str) -> String {
    let mut shown = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => shown.extend(['\\', character]),
            '\n' => shown.push_str("\\n"),
            '\t' => shown.push_str("\\t"),
            other if super::render::printable(other) == other => shown.push(other),
            other => shown.push_str(&format!("\\u{:04X}", u32::from(other))),
        }
    }
    shown.push('"');
    shown
}

/// A key of TOML, in quotes where it needs them.
fn key(name: &str) -> String {
    let bare = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if bare { name.to_owned() } else { quoted(name) }
}

/// The column where notes start, if the value leaves room.
const NOTES: usize = 40;
