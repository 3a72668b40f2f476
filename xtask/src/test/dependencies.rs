//! What of others is in the program, checked over `cargo metadata`: from where, under which licence, how much of it, and
//! what is there twice. Whoever adds something looks at it first, and then writes it here.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::workspace::{cargo, output};

pub(super) fn check() -> Result<()> {
    let words = ["metadata", "--format-version", "1", "--locked", "--filter-platform", PLATFORM];
    let metadata = serde_json::from_slice(&output(&mut cargo(words))?)?;
    let packages = packages(&metadata);
    let broken = broken_rules(&packages, &reach(&metadata, &packages));
    if !broken.is_empty() {
        bail!("{}", broken.join("\n"));
    }
    Ok(())
}

/// A package, ours or another's.
struct Package {
    name: String,
    version: String,
    licence: String,
    /// None: ours.
    source: Option<String>,
}

fn packages(metadata: &Value) -> BTreeMap<String, Package> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let each = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice).iter();
    each.map(|package| {
        let source = package["source"].as_str().map(str::to_owned);
        let (name, version) = (text(&package["name"]), text(&package["version"]));
        (text(&package["id"]), Package { name, version, licence: text(&package["license"]), source })
    })
    .collect()
}

/// The packages that the program is made of: those of others that it needs to run or to be built, not to be tested.
fn reach(metadata: &Value, packages: &BTreeMap<String, Package>) -> BTreeSet<String> {
    let nodes = metadata["resolve"]["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    let is_of_tests = |dependency: &Value| {
        dependency["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().all(|kind| kind["kind"] == "dev"))
    };
    let needs: BTreeMap<&str, Vec<&str>> = nodes
        .iter()
        .filter_map(|node| {
            let needs = node["deps"].as_array()?.iter().filter(|needs| !is_of_tests(needs));
            Some((node["id"].as_str()?, needs.filter_map(|needs| needs["pkg"].as_str()).collect()))
        })
        .collect();
    let program = packages.iter().find(|(_, package)| package.source.is_none() && package.name == PROGRAM);
    let mut next: Vec<&str> = program.map(|(id, _)| id.as_str()).into_iter().collect();
    let mut reached = BTreeSet::new();
    while let Some(id) = next.pop() {
        if reached.insert(id.to_owned()) {
            next.extend(needs.get(id).into_iter().flatten());
        }
    }
    reached.retain(|id| packages.get(id).is_some_and(|package| package.source.is_some()));
    reached
}

fn broken_rules(packages: &BTreeMap<String, Package>, of_program: &BTreeSet<String>) -> Vec<String> {
    let mut broken = Vec::new();
    for package in packages.values() {
        let Package { name, licence, .. } = package;
        if package.source.as_deref().is_some_and(|source| !source.starts_with(REGISTRY)) {
            broken.push(format!("{name}: comes from {:?}, not from a package registry", package.source));
        }
        if !LICENCES.contains(&licence.as_str()) {
            broken.push(format!("{name}: its licence `{licence}` is none of those in {}", file!()));
        }
    }
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in of_program.iter().filter_map(|id| packages.get(id)) {
        versions.entry(&package.name).or_default().insert(&package.version);
    }
    for (name, versions) in
        versions.iter().filter(|(name, versions)| versions.len() > 1 && !TWICE.contains(name))
    {
        broken.push(format!("{name}: the program has it in the versions {versions:?}"));
    }
    if of_program.len() > MOST {
        let count = of_program.len();
        broken.push(format!(
            "the program is made of {count} packages of others: at most {MOST} were agreed on"
        ));
    }
    broken
}

/// One platform, so that the count is the same everywhere.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";
const PROGRAM: &str = "shiftboss-cli";
/// How cargo tells such sources from others.
const REGISTRY: &str = "registry+";
/// Packages of others in the program, those that only run in the compiler included.
const MOST: usize = 108;
/// Procedural macros: only the compiler has both.
const TWICE: [&str; 1] = ["syn"];
/// As packages write them; each allows what ours do.
const LICENCES: [&str; 11] = [
    "(MIT OR Apache-2.0) AND Unicode-3.0",
    "Apache-2.0",
    "Apache-2.0 / MIT",
    "Apache-2.0 OR BSL-1.0",
    "Apache-2.0 OR MIT",
    "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
    "MIT",
    "MIT AND BSD-3-Clause",
    "MIT OR Apache-2.0",
    "MIT/Apache-2.0",
    "Unlicense OR MIT",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A program that needs these.
    fn broken(packages: &[Value]) -> Vec<String> {
        let program =
            json!({ "id": "program", "name": PROGRAM, "version": "0", "license": "MIT", "source": null });
        let needs: Vec<Value> = packages
            .iter()
            .map(|package| json!({ "pkg": package["id"], "dep_kinds": [{ "kind": package["kind"] }] }))
            .collect();
        let all = [&[program][..], packages].concat();
        let nodes = json!([{ "id": "program", "deps": needs }]);
        let metadata = json!({ "packages": all, "resolve": { "nodes": nodes } });
        let packages = super::packages(&metadata);
        broken_rules(&packages, &reach(&metadata, &packages))
    }

    fn package(name: &str, version: &str, licence: &str, kind: Option<&str>) -> Value {
        let id = format!("{name} {version}");
        json!({ "id": id, "name": name, "version": version, "license": licence, "source": REGISTRY, "kind": kind })
    }

    #[test]
    fn what_is_known_is_not_reported_and_what_is_of_tests_does_not_count() {
        let twice_in_tests = [package("a", "1.0.0", "MIT", None), package("a", "2.0.0", "MIT", Some("dev"))];
        assert_eq!(broken(&twice_in_tests), Vec::<String>::new());
    }

    #[test]
    fn a_licence_a_source_and_a_second_version_are_looked_at() {
        let mut elsewhere = package("c", "1.0.0", "MIT", None);
        elsewhere["source"] = "git+https://example.org/c".into();
        let other = package("d", "1.0.0", "GPL-3.0", Some("dev"));
        let found = broken(&[
            elsewhere,
            other,
            package("a", "1.0.0", "MIT", None),
            package("a", "2.0.0", "MIT", None),
        ]);
        assert_eq!(found.len(), 3, "{found:?}");
        for start in ["c: comes from", "d: its licence `GPL-3.0`", "a: the program has"] {
            assert!(found.iter().any(|broken| broken.starts_with(start)), "{found:?}");
        }
    }

    #[test]
    fn more_than_was_agreed_on_is_reported() {
        let many: Vec<Value> =
            (0..=MOST).map(|at| package(&format!("p{at}"), "1.0.0", "MIT", None)).collect();
        assert_eq!(broken(&many).len(), 1);
        assert_eq!(broken(&many[1..]), Vec::<String>::new());
    }
}
