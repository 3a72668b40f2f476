//! What kind of a worker a command is, where nobody has said.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::options::Kind;

/// What a command was taken for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guess {
    /// How its workers take part.
    pub kind: Kind,
    /// What is to be run: another command where the one given only starts it.
    pub command: Vec<String>,
}

/// Why a command cannot be run as it is: a launcher that is a Node program would itself become the worker, and the program
/// that it starts would have no channel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Launcher(String);

/// Takes a command for what it looks like: `node server.js`, a file named `.js`, `.mjs`, `.cjs` or `.ts`, and the script of a
/// package that is one of these (`npm start`) for programs of Node's `cluster`; all else for plain ones.
///
/// # Errors
/// For a launcher that cannot be seen through.
pub fn guess(command: &[String], cwd: Option<&Path>) -> Result<Guess, Launcher> {
    let Some((program, arguments)) = command.split_first() else { return Ok(plain(command)) };
    let name = file_name(program);
    match name {
        "node" | "nodejs" if has_script(arguments) => {
            Ok(Guess { kind: Kind::Node, command: command.to_vec() })
        }
        "npm" | "yarn" | "pnpm" if is_install(arguments) => Ok(plain(command)),
        "npm" | "yarn" | "pnpm" => see_through(name, arguments, cwd),
        "npx" | "bunx" | "tsx" | "ts-node" | "nodemon" => Err(Launcher(format!(
            "{name} starts the program as a child of its own, which would have no channel: name the program itself, as in \
             [\"node\", \"server.js\"]"
        ))),
        _ if is_script(name) => Ok(Guess { kind: Kind::Node, command: command.to_vec() }),
        _ => Ok(plain(command)),
    }
}

fn plain(command: &[String]) -> Guess {
    Guess { kind: Kind::Plain, command: command.to_vec() }
}

fn is_install(arguments: &[String]) -> bool {
    arguments.first().is_some_and(|word| ["install", "ci", "i", "--version", "-v"].contains(&word.as_str()))
}

/// `npm start`, `npm run NAME`: what package.json says that is.
fn see_through(launcher: &str, arguments: &[String], cwd: Option<&Path>) -> Result<Guess, Launcher> {
    let mut words = arguments.iter().map(String::as_str).filter(|word| !word.starts_with('-'));
    let script = match words.next() {
        Some("run" | "run-script") => words.next(),
        word => word,
    };
    let line = [&[launcher.to_owned()], arguments].concat().join(" ");
    let refuse = |why: &str| {
        Launcher(format!(
            "`{line}` {why}: name the program itself, as in [\"node\", \"server.js\"], or say kind = \"plain\""
        ))
    };
    let script = script.ok_or_else(|| refuse("is a launcher, whose program would have no channel"))?;
    let file = cwd.map_or_else(|| PathBuf::from("package.json"), |cwd| cwd.join("package.json"));
    let package = std::fs::read(&file)
        .ok()
        .and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok())
        .ok_or_else(|| refuse(&format!("cannot be seen through, since {} cannot be read", file.display())))?;
    let scripts = &package["scripts"];
    let text = match scripts[script].as_str() {
        Some(text) => text,
        // As npm has it.
        None if script == "start" => "node server.js",
        None => return Err(refuse(&format!("names a script that {} does not have", file.display()))),
    };
    if let Some(hook) =
        [format!("pre{script}"), format!("post{script}")].iter().find(|hook| scripts[hook].is_string())
    {
        return Err(refuse(&format!("runs `{hook}` as well")));
    }
    if text.contains(['|', '&', ';', '<', '>', '$', '*', '`', '"', '\'', '\\', '~', '=', '(']) {
        return Err(refuse(&format!("runs `{text}` in a shell")));
    }
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    // What is given after `--` goes to the program.
    let more = arguments.iter().skip_while(|word| *word != "--").skip(1).cloned();
    let command: Vec<String> = words.into_iter().chain(more).collect();
    let found = guess(&command, cwd)?;
    match found.kind {
        Kind::Node => Ok(found),
        Kind::Notify | Kind::Plain | Kind::Worker => Err(refuse(&format!("runs `{text}`"))),
    }
}

/// Whether node(1) is given a script: without one nothing in it is a worker.
fn has_script(arguments: &[String]) -> bool {
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "-e" | "--eval" | "-p" | "--print" | "-pe" | "-i" | "--interactive" | "-v" | "--version"
            | "-h" | "--help" => {
                return false;
            }
            "-r"
            | "--require"
            | "--import"
            | "--loader"
            | "--experimental-loader"
            | "-C"
            | "--conditions" => {
                words.next();
            }
            "--" => return words.next().is_some(),
            word if word.starts_with('-') => {}
            _ => return true,
        }
    }
    false
}

/// What a Node says of itself: "v20.1.0".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    line: u32,
    said: String,
}

impl Version {
    /// What is driven here has not changed since.
    pub(crate) fn is_too_old(&self) -> bool {
        self.line < 18
    }

    fn of(said: &str) -> Option<Version> {
        let said = said.trim().strip_prefix('v')?;
        let line = said.split('.').next()?.parse().ok()?;
        Some(Version { line, said: said.to_owned() })
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.said)
    }
}

/// The version of a program that is called as Node is; none of others, and of what says none.
pub(crate) fn version(program: &Path) -> Option<Version> {
    let name = program.file_name()?.to_str()?;
    if name != "node" && name != "nodejs" {
        return None;
    }
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    // As it is run itself, without what is ours.
    command.env_remove("NODE_OPTIONS").env_remove("NODE_CHANNEL_FD").env_remove("NODE_UNIQUE_ID");
    let mut child = command.spawn().ok()?;
    let said = child.stdout.take()?;
    let until = Instant::now() + AT_MOST;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() > until {
            // It is no Node, or one that does not answer when it is run either.
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    // Whoever it has left behind may hold the pipe; a line has room in it.
    let mut line = [0; 64];
    rustix::io::ioctl_fionbio(&said, true).ok()?;
    let count = rustix::io::read(&said, &mut line).ok()?;
    Version::of(&String::from_utf8_lossy(&line[..count]))
}

fn is_script(name: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|end| ["js", "mjs", "cjs", "ts"].iter().any(|known| end == *known))
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// For a program to say its version.
const AT_MOST: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str, cwd: Option<&Path>) -> Result<(Kind, String), String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        guess(&words, cwd)
            .map(|guess| (guess.kind, guess.command.join(" ")))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_node_program_is_known_by_its_command() {
        for line in [
            "node server.js",
            "/usr/bin/node --max-old-space-size=200 -r dotenv/config server.mjs 3000",
            "./server.js",
            "bin/www.cjs",
            "node .",
        ] {
            assert_eq!(of(line, None), Ok((Kind::Node, line.to_owned())), "{line}");
        }
        for line in ["node -e 1", "node", "node --version", "python3 app.js.py", "./server", "npm ci"] {
            assert_eq!(of(line, None), Ok((Kind::Plain, line.to_owned())), "{line}");
        }
    }

    #[test]
    fn a_version_is_what_node_says() {
        let old = Version::of("v16.20.2\n").unwrap();
        assert!(old.is_too_old() && old.to_string() == "16.20.2");
        assert!(!Version::of("v18.0.0").unwrap().is_too_old());
        assert_eq!((Version::of("20"), Version::of("deno 1")), (None, None));
        assert_eq!(version(Path::new("/bin/true")), None);
        let folder = tempfile::tempdir().unwrap();
        let node = folder.path().join("node");
        let said = |script: &str| {
            std::fs::write(&node, script).unwrap();
            std::fs::set_permissions(&node, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            version(&node).map(|version| version.to_string())
        };
        assert_eq!(said("#!/bin/sh\nsleep 3 & echo v16.1.0\n"), Some("16.1.0".to_owned()));
        assert_eq!(said("#!/bin/sh\nexec sleep 100\n"), None, "it is not waited for");
    }

    #[test]
    fn a_package_script_is_seen_through_or_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let package = r#"{"scripts":{"start":"node --trace-warnings srv.js","web":"node web.js | tee log","two":"node x.js",
            "pretwo":"make","tsc":"tsc"}}"#;
        std::fs::write(folder.path().join("package.json"), package).unwrap();
        let cwd = Some(folder.path());
        assert_eq!(of("npm start", cwd), Ok((Kind::Node, "node --trace-warnings srv.js".to_owned())));
        assert_eq!(of("npm run start -- -p 80", cwd).unwrap().1, "node --trace-warnings srv.js -p 80");
        for (line, why) in [
            ("npm run web", "in a shell"),
            ("npm run two", "runs `pretwo` as well"),
            ("npm run tsc", "runs `tsc`"),
            ("npm run nothing", "does not have"),
            ("npx server", "child of its own"),
        ] {
            let error = of(line, cwd).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
        assert!(of("npm start", Some(Path::new("/nowhere"))).unwrap_err().contains("cannot be read"));
    }
}
