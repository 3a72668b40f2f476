//! Who may depend on whom, checked over `cargo metadata`. What a dependency is used for is left to `sources`.

use anyhow::{Result, bail};
use serde_json::Value;

use crate::workspace::{cargo, output};

pub(super) fn check() -> Result<()> {
    let text = output(&mut cargo(["metadata", "--format-version", "1", "--no-deps"]))?;
    let broken = broken_rules(&serde_json::from_slice(&text)?);
    if !broken.is_empty() {
        bail!("{}", broken.join("\n"));
    }
    Ok(())
}

/// What one of our packages may use.
struct Rule {
    package: &'static str,
    /// Of our own packages, in any kind of dependency.
    ours: &'static [&'static str],
    /// Of our own packages, in its tests only.
    in_tests: &'static [&'static str],
    /// Of others, outside its tests; `None`: any.
    others: Option<&'static [&'static str]>,
}

/// A sentence for each dependency that no rule allows, and for each package that has no rule.
fn broken_rules(metadata: &Value) -> Vec<String> {
    let packages = array(&metadata["packages"]);
    let ours: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut broken = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(rule) = RULES.iter().find(|rule| rule.package == name) else {
            broken.push(format!("{name}: no rule says what it may depend on; write one in {}", file!()));
            continue;
        };
        for dependency in array(&package["dependencies"]) {
            let other = dependency["name"].as_str().unwrap_or_default();
            let of_tests = dependency["kind"] == "dev";
            let allowed = if ours.contains(&other) {
                rule.ours.contains(&other) || (of_tests && rule.in_tests.contains(&other))
            } else {
                of_tests || rule.others.is_none_or(|others| others.contains(&other))
            };
            if !allowed {
                broken.push(format!("{name} may not depend on {other}; it may use {}", rule.allowed()));
            }
        }
    }
    broken
}

impl Rule {
    fn allowed(&self) -> String {
        let list = |names: &[&str]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let others = self.others.map_or_else(|| "any".to_owned(), list);
        format!("of ours: {}; of others: {others}", list(self.ours))
    }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

const fn rule(package: &'static str, ours: &'static [&'static str]) -> Rule {
    Rule { package, ours, in_tests: &[], others: None }
}

/// Core's allow-list keeps out everything with a clock, randomness or an operating system in it.
const RULES: [Rule; 12] = [
    Rule {
        package: "shiftboss-core",
        ours: &[],
        in_tests: &["shiftboss-oracle"],
        others: Some(&["serde", "thiserror"]),
    },
    rule("shiftboss-oracle", &["shiftboss-core"]),
    rule("shiftboss-api", &[]),
    rule("shiftboss-channel", &[]),
    Rule { package: "shiftboss-link", ours: &[], in_tests: &[], others: Some(&["libc", "rustix"]) },
    Rule {
        package: "shiftboss-keeper",
        ours: &["shiftboss-link"],
        in_tests: &[],
        others: Some(&["libc", "rustix"]),
    },
    rule(
        "shiftboss",
        &["shiftboss-core", "shiftboss-api", "shiftboss-channel", "shiftboss-keeper", "shiftboss-link"],
    ),
    rule("shiftboss-dashboard", &["shiftboss-api"]),
    rule("shiftboss-fleet", &["shiftboss-api"]),
    Rule {
        package: "shiftboss-cli",
        ours: &["shiftboss", "shiftboss-api", "shiftboss-dashboard", "shiftboss-fleet", "shiftboss-keeper"],
        in_tests: &["shiftboss-oracle"],
        others: None,
    },
    rule("shiftboss-test-worker", &["shiftboss-link"]),
    rule("xtask", &["shiftboss-api", "shiftboss-oracle"]),
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Value {
        let dependencies = dependencies.iter().map(|(name, kind)| json!({ "name": name, "kind": kind }));
        json!({ "name": name, "dependencies": dependencies.collect::<Vec<_>>() })
    }

    fn broken(packages: &[Value]) -> Vec<String> {
        let mut all = packages.to_vec();
        for rule in &RULES {
            if all.iter().all(|package| package["name"] != rule.package) {
                all.push(package(rule.package, &[]));
            }
        }
        broken_rules(&json!({ "packages": all }))
    }

    #[test]
    fn what_the_rules_allow_is_not_reported() {
        let cli = package("shiftboss-cli", &[("shiftboss", None), ("clap", None), ("insta", Some("dev"))]);
        let core = package("shiftboss-core", &[("thiserror", None), ("insta", Some("dev"))]);
        assert_eq!(broken(&[cli, core]), Vec::<String>::new());
    }

    #[test]
    fn a_dependency_against_the_direction_is_named() {
        for kind in [None, Some("dev"), Some("build")] {
            let broken = broken(&[package("shiftboss-api", &[("shiftboss-core", kind)])]);
            assert_eq!(broken.len(), 1, "{broken:?}");
            assert!(broken[0].starts_with("shiftboss-api may not depend on shiftboss-core;"), "{broken:?}");
        }
    }

    #[test]
    fn core_uses_nothing_that_has_a_clock_or_an_operating_system() {
        for other in ["tokio", "rustix", "libc", "socket2", "rand", "jiff"] {
            assert_eq!(broken(&[package("shiftboss-core", &[(other, None)])]).len(), 1, "{other}");
        }
    }

    #[test]
    fn a_package_without_a_rule_is_reported() {
        let broken = broken(&[package("shiftboss-extra", &[])]);
        assert_eq!(broken.len(), 1, "{broken:?}");
        assert!(broken[0].starts_with("shiftboss-extra: no rule"), "{broken:?}");
    }
}
