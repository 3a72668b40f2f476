//! `cargo xtask test`: all that must hold before a change is taken, a step after the other, up to the first that fails.

mod dependencies;
mod directions;
mod machine;
mod node;
mod sources;

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::mutants;
use crate::workspace::{cargo, root, succeed};

pub(crate) fn run() -> Result<bool> {
    let mut steps = Steps { passed: 0, begun: Instant::now() };
    let ran = all(&mut steps);
    let failed = u32::from(ran.is_err());
    println!("\n== {:.1} s in all", steps.begun.elapsed().as_secs_f64());
    println!("steps: {} passed, {failed} failed", steps.passed);
    ran.map(|()| true)
}

fn all(steps: &mut Steps) -> Result<()> {
    let places = steps.run("machine: what the tests need is there", Places::prepare)?;
    steps.run("format: cargo fmt", || succeed(&mut cargo(["fmt", "--all", "--check"])))?;
    steps.run("directions: who may depend on whom", directions::check)?;
    steps.run("dependencies: what of others is in the program", dependencies::check)?;
    steps.run("sources: who may do what", || sources::check(&root()))?;
    steps.run("lint: cargo clippy", || {
        succeed(&mut cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
    })?;
    // What the command has not: off by default, and in no program that is built here but the tests.
    steps.run("lint: cargo clippy, with Sentry", || {
        let words = ["clippy", "-p", "shiftboss", "--features", "sentry", "--all-targets"];
        succeed(cargo(words).args(["--", "-D", "warnings"]))
    })?;
    steps.run("doc: cargo doc", || {
        succeed(cargo(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    // The tests start the programs of other packages.
    steps.run("programs: cargo build", || succeed(&mut cargo(["build", "--workspace", "--bins"])))?;
    steps.run("examples: cargo build", || succeed(&mut cargo(["build", "--workspace", "--examples"])))?;
    steps.run("doc tests: cargo test --doc", || succeed(&mut cargo(["test", "--workspace", "--doc"])))?;
    steps.run("planted bugs: cargo xtask mutants", || match mutants::run(&[])? {
        true => Ok(()),
        false => bail!("a planted bug was not caught"),
    })?;
    steps.run("fuzz targets: what their corpora hold", || {
        let words = ["test", "--manifest-path", "fuzz/Cargo.toml", "--no-default-features", "--lib"];
        succeed(cargo(words).args(["--target-dir", "target/fuzz-tests"]))
    })?;
    steps.run("tests of the app with Sentry", || {
        succeed(&mut cargo(["test", "-p", "shiftboss", "--features", "sentry", "--test", "app"]))
    })?;
    steps.run("tests", || succeed(&mut places.tests()))
}

/// Where the tests find what they need of others.
pub(crate) struct Places {
    venv: PathBuf,
    nodes: String,
    packages: String,
}

impl Places {
    /// Installs what is not there.
    pub(crate) fn prepare() -> Result<Places> {
        let target = root().join("target");
        let venv = target.join("venv");
        machine::prepare(&venv)?;
        Ok(Places { venv, nodes: node::prepare(&target), packages: node::packages(&target) })
    }

    /// All tests but those of the documentation.
    pub(crate) fn tests(&self) -> Command {
        let mut tests = if machine::has_nextest() {
            cargo(["nextest", "run", "--workspace", "--no-fail-fast"])
        } else {
            cargo(["test", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"])
        };
        tests.env("SHIFTBOSS_TEST_VENV", &self.venv).env("SHIFTBOSS_TEST_NODES", &self.nodes);
        if !self.packages.is_empty() {
            tests.env("SHIFTBOSS_TEST_NODE_PATH", &self.packages);
        }
        tests
    }
}

struct Steps {
    passed: u32,
    begun: Instant,
}

impl Steps {
    fn run<T>(&mut self, name: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("\n== {name}");
        let begun = Instant::now();
        let ran = step().with_context(|| format!("step `{name}` failed"));
        let word = if ran.is_ok() { "passed" } else { "failed" };
        println!("-- {name}: {word} in {:.1} s", begun.elapsed().as_secs_f64());
        self.passed += u32::from(ran.is_ok());
        ran
    }
}
