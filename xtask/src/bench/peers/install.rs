//! The peers, installed by name where they lack: npm and pip into `target/peers`, apt only as root. What cannot be had
//! is known with its reason, and the rest is measured without it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::super::Bench;
use crate::workspace::root;

/// Each with where it is, or why it is not there.
pub(super) struct Installed {
    /// Holds `node_modules`.
    pub(super) npm: Result<PathBuf, String>,
    pub(super) venv: Result<PathBuf, String>,
    pub(super) node: Result<(), String>,
    pub(super) s6: Result<(), String>,
    pub(super) runit: Result<(), String>,
    /// Whether this shiftboss runs programs of Node's cluster.
    pub(super) kind_node: Result<(), String>,
}

impl Installed {
    pub(super) fn prepare(bench: &Bench) -> Installed {
        let place = root().join("target/peers");
        let told = |error: anyhow::Error| format!("{error:#}");
        let node = works("node", &["--version"]).map_err(|error| format!("node: {error:#}"));
        Installed {
            npm: node.clone().and_then(|()| npm(&place.join("npm")).map_err(told)),
            venv: venv(&place.join("venv")).map_err(told),
            node,
            s6: apt("s6-svscan", "s6").map_err(told),
            runit: apt("runsvdir", "runit").map_err(told),
            kind_node: kind_node(bench).map_err(told),
        }
    }

    /// Names and versions of what there is.
    pub(super) fn versions(&self) -> Vec<(&'static str, String)> {
        let mut versions = Vec::new();
        if let Ok(npm) = &self.npm {
            for name in ["pm2", "okanjo-app-broker", "okanjo-app"] {
                versions.push((name, npm_version(npm, name)));
            }
        }
        if let Ok(venv) = &self.venv {
            for name in ["supervisor", "circus", "gunicorn"] {
                let version = said(
                    &venv.join("bin/python"),
                    &[
                        "-c",
                        "import sys; from importlib.metadata import version; print(version(sys.argv[1]))",
                        name,
                    ],
                );
                versions.push((name, version));
            }
        }
        for (name, there) in [("s6", &self.s6), ("runit", &self.runit)] {
            if there.is_ok() {
                versions.push((name, said(Path::new("dpkg-query"), &["-W", "-f", "${Version}", name])));
            }
        }
        if self.node.is_ok() {
            versions.push(("Node", said(Path::new("node"), &["--version"])));
        }
        versions.push((
            "Python",
            said(Path::new("python3"), &["-c", "import platform; print(platform.python_version())"]),
        ));
        versions
    }
}

fn npm(place: &Path) -> Result<PathBuf> {
    let complete =
        NPM.iter().all(|(name, _)| place.join("node_modules").join(name).join("package.json").exists());
    if !complete {
        std::fs::create_dir_all(place).context("cannot make a folder")?;
        let mut command = Command::new("npm");
        command.args([
            "install",
            "--no-audit",
            "--no-fund",
            "--no-update-notifier",
            "--loglevel=error",
            "--prefix",
        ]);
        command.arg(place).args(NPM.map(|(name, version)| format!("{name}@{version}")));
        quietly(&mut command)?;
    }
    Ok(place.to_owned())
}

fn venv(place: &Path) -> Result<PathBuf> {
    let complete =
        ["supervisord", "circusd", "gunicorn"].iter().all(|name| place.join("bin").join(name).exists());
    if !complete {
        quietly(Command::new("python3").args(["-m", "venv"]).arg(place))?;
        let mut pip = Command::new(place.join("bin/pip"));
        quietly(pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(PIP))?;
    }
    Ok(place.to_owned())
}

fn apt(program: &str, package: &str) -> Result<()> {
    let found = || said(Path::new("sh"), &["-c", &format!("command -v {program}")]);
    if !found().is_empty() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        anyhow::bail!("`apt-get install {package}` gets it, as root");
    }
    let mut command = Command::new("apt-get");
    command.args(["install", "-y", "-qq", "--no-install-recommends", package]);
    quietly(command.env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Asked of the program itself, so that its rows are there as soon as it can.
fn kind_node(bench: &Bench) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("bench-").tempdir().context("cannot make a folder")?;
    let config = folder.path().join("shiftboss.toml");
    let text = "app = \"bench\"\n[broker.web]\ncommand = [\"node\", \"server.js\"]\nkind = \"node\"\n";
    std::fs::write(&config, text).context("cannot write a configuration")?;
    let mut check = Command::new(&bench.shiftboss);
    check.arg("--config").arg(config).arg("check").env_remove("env");
    quietly(&mut check).context("this build does not know kind = \"node\"")
}

fn works(program: &str, words: &[&str]) -> Result<()> {
    quietly(Command::new(program).args(words))
}

/// Its last words if it fails.
fn quietly(command: &mut Command) -> Result<()> {
    let name =
        Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no word").to_owned();
        anyhow::bail!("{name}: {}: {last}", output.status);
    }
    Ok(())
}

fn said(program: &Path, words: &[&str]) -> String {
    let output = Command::new(program).args(words).stdin(Stdio::null()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_default()
}

fn npm_version(place: &Path, name: &str) -> String {
    let text = std::fs::read(place.join("node_modules").join(name).join("package.json")).unwrap_or_default();
    let package: Value = serde_json::from_slice(&text).unwrap_or_default();
    package["version"].as_str().unwrap_or_default().to_owned()
}

/// With the range of versions that is asked for.
const NPM: [(&str, &str); 3] = [("pm2", "7"), ("okanjo-app-broker", "3.2"), ("okanjo-app", "3")];
const PIP: [&str; 3] = ["supervisor", "circus", "gunicorn"];
