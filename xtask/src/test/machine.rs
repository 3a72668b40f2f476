//! What the machine must have for the tests. What is missing is installed by name where that can be done unasked, and
//! else named, together with the command that gets it.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::workspace::{cargo, succeed};

/// Makes everything ready that the tests use; `venv` becomes a Python environment with [`PYTHON_PACKAGES`].
pub(super) fn prepare(venv: &Path) -> Result<()> {
    for (component, verb) in [("rustfmt", "fmt"), ("clippy", "clippy")] {
        if !works(cargo([verb, "--version"])) {
            add_component(component)?;
        }
    }
    prepare_python()?;
    // Without them the tests of failing system calls say that they were not tried.
    for (program, package) in [("strace", "strace"), ("ss", "iproute2")] {
        if !works(with(program, ["-V"])) && can_install() {
            println!("{program} is missing: apt-get install -y {package}");
            install(&[package])?;
        }
    }
    prepare_venv(venv)?;
    if !has_nextest() {
        println!("cargo-nextest is not there: cargo test is used (`cargo install cargo-nextest` gets it)");
    }
    if !works(with("node", ["--version"])) {
        println!("node is not there: what it would test is left out");
    }
    Ok(())
}

/// Whether cargo can run the tests with nextest.
pub(super) fn has_nextest() -> bool {
    works(cargo(["nextest", "--version"]))
}

fn add_component(component: &str) -> Result<()> {
    if !works(with("rustup", ["--version"])) {
        bail!("{component} is missing; the toolchain's package of that name has it");
    }
    succeed(&mut with("rustup", ["component", "add", component])).with_context(|| {
        format!("{component} is missing, and `rustup component add {component}` does not get it")
    })
}

fn prepare_python() -> Result<()> {
    if works(with("python3", ["-c", "import venv, ensurepip"])) {
        return Ok(());
    }
    let packages = ["python3", "python3-venv"];
    let line = format!("apt-get install -y {}", packages.join(" "));
    if !can_install() {
        bail!("python3 with its module venv is missing; on Debian `{line}` gets it");
    }
    println!("python3 with its module venv is missing: {line}");
    install(&packages)
}

fn can_install() -> bool {
    rustix::process::geteuid().is_root() && works(with("apt-get", ["--version"]))
}

fn install(packages: &[&str]) -> Result<()> {
    succeed(&mut with("apt-get", ["update", "-qq"]))?;
    let mut install = with("apt-get", ["install", "-y", "-qq", "--no-install-recommends"]);
    succeed(install.args(packages).env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Makes the environment once. It is complete when its list of packages is this one, which is written last.
fn prepare_venv(venv: &Path) -> Result<()> {
    let list = venv.join("complete");
    let wanted: String =
        PYTHON_PACKAGES.iter().map(|(name, version)| format!("{name}=={version}\n")).collect();
    let complete = fs::read_to_string(&list).is_ok_and(|found| found == wanted);
    if complete && works(with(venv.join("bin/python"), ["-c", "import gunicorn, uvicorn"])) {
        return Ok(());
    }
    println!("making {}", venv.display());
    match fs::remove_dir_all(venv) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", venv.display()));
        }
        Ok(()) | Err(_) => {}
    }
    succeed(with("python3", ["-m", "venv"]).arg(venv))?;
    let mut install = with(venv.join("bin/pip"), ["install", "--quiet", "--disable-pip-version-check"]);
    succeed(install.args(wanted.lines())).with_context(|| {
        format!("cannot install {} from the Python package index", wanted.replace('\n', " "))
    })?;
    fs::write(&list, wanted).with_context(|| format!("cannot write {}", list.display()))
}

fn with<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, words: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null());
    command
}

fn works(mut command: Command) -> bool {
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Servers that the tests run as workers, with what they need themselves.
const PYTHON_PACKAGES: [(&str, &str); 4] =
    [("gunicorn", "27.0.1"), ("uvicorn", "0.54.0"), ("click", "8.5.1"), ("h11", "0.16.0")];
