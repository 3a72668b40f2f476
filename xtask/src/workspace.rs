//! The work tree this program belongs to, and cargo run in it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// Its folder. Cargo tells it at run time; the one of the build is for a program started by hand.
pub(crate) fn root() -> PathBuf {
    let own = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    own.parent().map_or_else(|| own.clone(), Path::to_path_buf)
}

/// The cargo that runs this program, in the work tree, with these arguments.
pub(crate) fn cargo<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(words).current_dir(root()).stdin(Stdio::null());
    command
}

/// Runs it to its end, its output shown.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let line = shown(command);
    let status = command.status().with_context(|| format!("cannot run `{line}`"))?;
    if !status.success() {
        bail!("`{line}`: {status}");
    }
    Ok(())
}

/// Runs it to its end and returns what it wrote to standard output.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let line = shown(command);
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}`: {}", output.status);
    }
    Ok(output.stdout)
}

/// Builds these packages, optimised, and returns the path of each program among them with its name.
pub(crate) fn release_programs(packages: &[&str]) -> Result<Vec<(String, PathBuf)>> {
    build_released(packages.iter().flat_map(|package| ["-p", package]))
}

/// Builds the program that `bench` and `messages` measure, optimised.
pub(crate) fn figures() -> Result<PathBuf> {
    let built = build_released(["-p", "shiftboss", "--bench", "figures"])?;
    built.into_iter().next().map(|(_, path)| path).context("cargo built no program `figures`")
}

fn build_released<'a>(what: impl IntoIterator<Item = &'a str>) -> Result<Vec<(String, PathBuf)>> {
    let mut command = cargo(["build", "--release", "--message-format=json-render-diagnostics"]);
    command.args(what);
    let messages = String::from_utf8(output(&mut command)?)?;
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let programs = messages.filter_map(|message| {
        let path = message["executable"].as_str()?;
        Some((message["target"]["name"].as_str()?.to_owned(), path.into()))
    });
    Ok(programs.collect())
}

/// A command as one would type it, without its environment.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy();
    let words = command.get_args().map(|word| word.to_string_lossy());
    std::iter::once(program).chain(words).collect::<Vec<_>>().join(" ")
}
