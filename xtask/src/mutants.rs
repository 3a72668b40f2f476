//! `cargo xtask mutants`: one-line bugs, planted in a copy of core, each of which the simulation must catch.
//!
//! The copy is built once, with a switch at each place; the real sources and every real build know nothing of it. A bug
//! is an expression or a statement and what it becomes; the list is `crates/core/tests/mutants.toml`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::workspace::{self, cargo, root};

#[derive(Deserialize)]
struct List {
    mutant: Vec<Mutant>,
}

/// A planted bug.
#[derive(Deserialize)]
struct Mutant {
    /// What it does, in words.
    bug: String,
    /// The promise it was made for; none for those that were thought of apart from the list of promises.
    breaks: Option<String>,
    #[serde(flatten)]
    edit: Edit,
    /// Further places that belong to it.
    #[serde(default)]
    also: Vec<Edit>,
    /// Changes that do no harm alone and are made for good, such as of a visibility.
    #[serde(default)]
    raw: Vec<Edit>,
    /// The test that must fail; default: the simulation.
    #[serde(default = "simulation")]
    test: String,
}

/// A place in core's sources, and what it becomes.
#[derive(Deserialize)]
struct Edit {
    file: String,
    /// What must stand around it, to tell it from other places.
    #[serde(default)]
    before: String,
    #[serde(default)]
    after: String,
    /// An expression or statement.
    replace: String,
    with: String,
}

fn simulation() -> String {
    "simulation".to_owned()
}

/// In a file: where something stands and how long it is, and what which bugs make of it.
type Places<'a> = BTreeMap<(usize, usize), Vec<(u32, &'a str)>>;

/// How a mutant fared.
enum Fate {
    /// By these promises, or by a test that names none.
    Caught(Vec<String>),
    Survived,
}

/// True if all were caught.
pub(crate) fn run(words: &[OsString]) -> Result<bool> {
    let only: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    let text = fs::read_to_string(root().join(LIST)).with_context(|| format!("cannot read {LIST}"))?;
    let list: List = toml::from_str(&text).with_context(|| format!("cannot understand {LIST}"))?;
    let begun = Instant::now();
    let programs = build(&list.mutant)?;
    let built = begun.elapsed();
    let (mut caught, mut tried, mut elsewhere) = (0, 0, 0);
    for (test, program) in &programs {
        if list.mutant.iter().any(|mutant| mutant.test == *test)
            && let Fate::Caught(by) = fate(program, 0)?
        {
            bail!("test {test} fails without any bug planted: {}", by.join(" "));
        }
    }
    for (number, mutant) in (1..).zip(&list.mutant) {
        let name = mutant.breaks.as_deref().unwrap_or("-");
        if !only.is_empty() && !only.contains(&name) && !only.contains(&number.to_string().as_str()) {
            continue;
        }
        tried += 1;
        let program =
            programs.get(&mutant.test).with_context(|| format!("there is no test `{}`", mutant.test))?;
        match fate(program, number)? {
            Fate::Caught(by) => {
                caught += 1;
                let expected = mutant.breaks.is_none() || by.is_empty() || by.iter().any(|by| by == name);
                elsewhere += u32::from(!expected);
                let by = if by.is_empty() { format!("test {}", mutant.test) } else { by.join(" ") };
                println!("{number:3} {name:5} {:58} caught by {by}", mutant.bug);
            }
            Fate::Survived => println!("{number:3} {name:5} {:58} SURVIVED", mutant.bug),
        }
    }
    let ran = begun.elapsed() - built;
    println!("mutants caught {caught} of {tried} ({elsewhere} by another promise than their own)");
    println!("built in {:.0} s, run in {:.0} s", built.as_secs_f64(), ran.as_secs_f64());
    ensure!(tried > 0, "nothing in {LIST} is called {only:?}");
    Ok(caught == tried)
}

/// Builds core's tests with every bug planted behind its number; the program of each test by name.
fn build(mutants: &[Mutant]) -> Result<BTreeMap<String, PathBuf>> {
    let copy = root().join("target/mutants/tree");
    if copy.exists() {
        fs::remove_dir_all(&copy).context("cannot remove the last copy of core")?;
    }
    for package in ["core", "oracle"] {
        copy_folder(&root().join("crates").join(package), &copy.join("crates").join(package))?;
    }
    let manifest = fs::read_to_string(root().join("Cargo.toml"))?;
    let members = "members = [\"crates/*\", \"xtask\"]";
    ensure!(manifest.contains(members), "the work tree has other members than expected");
    fs::write(copy.join("Cargo.toml"), manifest.replace(members, "members = [\"crates/*\"]"))?;
    fs::copy(root().join("Cargo.lock"), copy.join("Cargo.lock"))?;
    let sources = copy.join("crates/core/src");
    plant(&sources, mutants)?;
    let library = sources.join("lib.rs");
    let text = fs::read_to_string(&library)?;
    fs::write(&library, format!("{text}\nmod mutant;\n"))?;
    fs::write(sources.join("mutant.rs"), SWITCH)?;
    let mut command =
        cargo(["test", "--no-run", "-p", "shiftboss-core", "--message-format=json-render-diagnostics"]);
    command.current_dir(&copy).env("CARGO_TARGET_DIR", root().join("target/mutants/build"));
    // A planted bug may leave something unused.
    command.env("RUSTFLAGS", "--cap-lints=allow");
    let messages = workspace::output(&mut command).context("the planted bugs do not compile")?;
    let messages = String::from_utf8(messages)?;
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let programs = messages.filter_map(|message| {
        let program = message["executable"].as_str()?;
        Some((message["target"]["name"].as_str()?.to_owned(), PathBuf::from(program)))
    });
    Ok(programs.collect())
}

/// Puts a switch at each place. Bugs that share a place share the switch.
fn plant(sources: &Path, mutants: &[Mutant]) -> Result<()> {
    let mut places: BTreeMap<&str, Places<'_>> = BTreeMap::new();
    let mut texts = BTreeMap::new();
    for mutant in mutants {
        for Edit { file, replace, with, .. } in &mutant.raw {
            let path = sources.join(file);
            let text = fs::read_to_string(&path)?;
            fs::write(&path, text.replacen(replace.as_str(), with, 1))?;
        }
    }
    for (number, mutant) in (1..).zip(mutants) {
        for edit in std::iter::once(&mutant.edit).chain(&mutant.also) {
            let Edit { file, before, after, replace, with } = edit;
            if !texts.contains_key(file.as_str()) {
                let text = fs::read_to_string(sources.join(file));
                let text = text.with_context(|| format!("mutant {number} ({}): no {file}", mutant.bug))?;
                texts.insert(file.as_str(), text);
            }
            let sought = format!("{before}{replace}{after}");
            let found: Vec<usize> = texts[file.as_str()].match_indices(&sought).map(|(at, _)| at).collect();
            let [at] = found[..] else {
                bail!("mutant {number} ({}): `{sought}` stands {} times in {file}", mutant.bug, found.len());
            };
            let place = (at + before.len(), replace.len());
            places.entry(file).or_default().entry(place).or_default().push((number, with));
        }
    }
    for (file, places) in places {
        let mut text = texts[file].clone();
        for ((at, length), bugs) in places.into_iter().rev() {
            let original = text[at..at + length].to_owned();
            let switches: String = bugs
                .iter()
                .map(|(number, with)| format!("if crate::mutant::planted({number}) {{ {with} }} else "))
                .collect();
            let switch = format!("{switches}{{ {original} }}");
            // A statement stands as it is; of an expression it must be clear where it ends.
            let switch = if original.ends_with([';', '}']) { switch } else { format!("({switch})") };
            text.replace_range(at..at + length, &switch);
        }
        fs::write(sources.join(file), text)?;
    }
    Ok(())
}

fn fate(program: &Path, number: u32) -> Result<Fate> {
    // It may also run for ever, which is a way of being caught.
    let mut command = Command::new("timeout");
    command.arg(SECONDS).arg(program).arg("--nocapture").stdin(Stdio::null());
    command
        .env("MUTANT", number.to_string())
        .env("SIM_STEPS", STEPS)
        .env("SIM_SHRINK", "0")
        .env_remove("SIM_SEED");
    let output = command.output().context("cannot run the test")?;
    if output.status.success() {
        return Ok(Fate::Survived);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let broken = text.lines().find_map(|line| line.strip_prefix("broken: "));
    Ok(Fate::Caught(broken.unwrap_or_default().split_whitespace().map(str::to_owned).collect()))
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_folder(&from, &to)?;
        } else {
            fs::copy(&from, &to)?;
        }
    }
    Ok(())
}

const LIST: &str = "crates/core/tests/mutants.toml";
/// Enough for every promise to be put to the test many times.
const STEPS: &str = "2000000";
const SECONDS: &str = "60";
/// Which bug is planted in this process.
const SWITCH: &str = "
use std::sync::OnceLock;

pub(crate) fn planted(number: u32) -> bool {
    static PLANTED: OnceLock<u32> = OnceLock::new();
    #[allow(clippy::disallowed_methods)]
    let planted = PLANTED.get_or_init(|| std::env::var(\"MUTANT\").ok().and_then(|text| text.parse().ok()).unwrap_or(0));
    *planted == number
}
";
