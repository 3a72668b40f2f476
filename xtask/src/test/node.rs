//! Nodes of other lines than the machine's, from the package registry of npm, for the tests that run each.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

/// Makes them ready in folders of `target`; the paths, with a colon between. Names those that cannot be had: what they
/// would test is left out.
pub(super) fn prepare(target: &Path) -> String {
    let mut nodes = Vec::new();
    for version in VERSIONS {
        match install(target, version) {
            Ok(node) => nodes.push(node.display().to_string()),
            Err(why) => println!("node {version} is not there ({why}): what it would test is left out"),
        }
    }
    nodes.join(":")
}

/// The packages of okanjo-app-broker in a folder of `target`; the path, for Node to look in. None if they cannot be had.
pub(super) fn prepare_okanjo(target: &Path) -> Option<PathBuf> {
    let folder = target.join("node/okanjo");
    let modules = folder.join("node_modules");
    if modules.join("okanjo-app-broker").is_dir() && modules.join("okanjo-app").is_dir() {
        return Some(modules);
    }
    match npm(&folder, &["okanjo-app-broker@3.2.0", "okanjo-app@3"]) {
        Ok(()) => Some(modules),
        Err(why) => {
            println!("okanjo-app-broker is not there ({why}): what it would test is left out");
            None
        }
    }
}

fn install(target: &Path, version: &str) -> Result<PathBuf, String> {
    let architecture = match env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => return Err(format!("there is none for {other}")),
    };
    // What the package `node` would fetch in a script of its own.
    let package = format!("node-linux-{architecture}");
    let folder = target.join("node").join(version);
    let node = folder.join("node_modules").join(&package).join("bin/node");
    if is_version(&node, version) {
        return Ok(node);
    }
    npm(&folder, &[&format!("{package}@{version}")])?;
    if is_version(&node, version) { Ok(node) } else { Err("it does not run".to_owned()) }
}

fn npm(folder: &Path, packages: &[&str]) -> Result<(), String> {
    println!("npm install {}", packages.join(" "));
    fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    let npm = Command::new("npm")
        .args(["install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--prefix"])
        .arg(folder)
        .args(packages)
        .stdin(Stdio::null())
        .status();
    match npm {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("npm install: {status}")),
        Err(error) => Err(format!("npm: {error}")),
    }
}

fn is_version(node: &Path, version: &str) -> bool {
    let said = Command::new(node).arg("--version").stdin(Stdio::null()).output();
    said.is_ok_and(|said| {
        said.stdout.strip_prefix(b"v").is_some_and(|said| said.trim_ascii() == version.as_bytes())
    })
}

/// One of each line that is cared for.
const VERSIONS: [&str; 4] = ["18.20.8", "20.20.2", "22.23.5", "24.22.3"];
