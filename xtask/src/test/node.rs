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

/// Makes packages ready that the examples need; the path to them, or nothing if they cannot be had.
pub(super) fn packages(target: &Path) -> String {
    let folder = target.join("node-packages");
    let modules = folder.join("node_modules");
    let has = |name: &str| modules.join(name).join("package.json").exists();
    if !PACKAGES.iter().all(|(name, _)| has(name)) {
        let wanted: Vec<String> =
            PACKAGES.iter().map(|(name, version)| format!("{name}@{version}")).collect();
        println!("npm install {}", wanted.join(" "));
        let made = fs::create_dir_all(&folder).map_err(|error| error.to_string());
        if let Err(why) = made.and_then(|()| npm_install(&folder, &wanted)) {
            println!("packages for Node are not there ({why}): what they would test is left out");
            return String::new();
        }
    }
    modules.display().to_string()
}

fn npm_install(folder: &Path, packages: &[String]) -> Result<(), String> {
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
    println!("npm install {package}@{version}");
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    npm_install(&folder, &[format!("{package}@{version}")])?;
    if is_version(&node, version) { Ok(node) } else { Err("it is another version".to_owned()) }
}

fn is_version(node: &Path, version: &str) -> bool {
    let said = Command::new(node).arg("--version").stdin(Stdio::null()).output();
    said.is_ok_and(|said| {
        said.stdout.strip_prefix(b"v").is_some_and(|said| said.trim_ascii() == version.as_bytes())
    })
}

/// What the examples for Node need.
const PACKAGES: [(&str, &str); 4] =
    [("express", "5"), ("ws", "8"), ("okanjo-app", "3"), ("okanjo-app-broker", "3.2")];
/// One of each line that is cared for.
const VERSIONS: [&str; 4] = ["18.20.8", "20.20.2", "22.23.5", "24.22.3"];
