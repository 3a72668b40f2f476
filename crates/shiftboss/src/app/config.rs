//! The program's own configuration: layered by environment, read into the program's types.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::App;
use super::builder::DEFAULT;

/// What is wrong with the program's own configuration. Of what it holds names are shown, and no values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// What was given as the configuration is none.
    #[error("the configuration has to be a table, and is {found}")]
    NoTable {
        /// What it is instead.
        found: String,
    },
    /// An environment is asked for that the configuration does not have.
    #[error("there is no environment `{name}` in the configuration: it has no table of that name")]
    Environment {
        /// What was asked for.
        name: String,
    },
    /// Nothing stands where something was looked for.
    #[error("there is no `{path}` in the configuration")]
    Missing {
        /// The keys that lead there, with points between.
        path: String,
    },
    /// What stands there is not what the program asked for.
    #[error("{}{}{why}", place(at), named(path))]
    Refused {
        /// The keys that lead there, with points between; empty for the whole.
        path: String,
        /// File and line, if it is from a file.
        at: Option<(String, usize)>,
        /// What was expected, and what kind of value is there.
        why: String,
    },
}

/// A configuration in one environment.
#[derive(Default)]
pub(super) struct Configuration {
    value: Map<String, Value>,
    /// The file that it is from, and the line of each key by its dotted path.
    file: Option<(String, BTreeMap<String, usize>)>,
}

impl Configuration {
    /// A value whose environments are tables in it, by name.
    pub(super) fn layered(value: Value, environment: &str) -> Result<Self, ConfigError> {
        let Value::Object(mut value) = value else {
            return Err(ConfigError::NoTable { found: kind_of(&value).to_owned() });
        };
        for layer in [DEFAULT, environment] {
            match value.get(layer) {
                Some(Value::Object(_)) => {
                    let Some(Value::Object(over)) = value.remove(layer) else { continue };
                    lay(&mut value, over);
                }
                Some(_) | None if layer == DEFAULT => {}
                Some(_) | None => return Err(ConfigError::Environment { name: layer.to_owned() }),
            }
        }
        Ok(Configuration { value, file: None })
    }

    #[cfg(feature = "config")]
    pub(super) fn of_file(path: &std::path::Path, settings: crate::config::Settings) -> Self {
        Configuration { value: settings.value, file: Some((path.display().to_string(), settings.lines)) }
    }

    fn read<T: DeserializeOwned>(&self, value: &Value, within: &str) -> Result<T, ConfigError> {
        serde_path_to_error::deserialize(value).map_err(|error| {
            let below = error.path().to_string();
            let path = match (within, below.as_str()) {
                (within, ".") => within.to_owned(),
                ("", below) => below.to_owned(),
                (within, below) => format!("{within}.{below}"),
            };
            let why = without_value(&error.into_inner().to_string());
            ConfigError::Refused { at: self.place(&path), path, why }
        })
    }

    /// The line of a key, or of the nearest table around it.
    fn place(&self, path: &str) -> Option<(String, usize)> {
        let (file, lines) = self.file.as_ref()?;
        let mut path = path;
        loop {
            if let Some(line) = lines.get(path) {
                return Some((file.clone(), *line));
            }
            path = &path[..path.rfind(['.', '[']).or(Some(0).filter(|_| !path.is_empty()))?];
        }
    }
}

impl App {
    /// The whole configuration of the program, with the environment's part laid over it: from the value that was given,
    /// or the file's `[settings]`. An empty table without either.
    ///
    /// # Errors
    /// [`ConfigError::Refused`] if it is not what the type asks for: the key, and the file's line.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let configuration = &self.inner.configuration;
        configuration.read(&Value::Object(configuration.value.clone()), "")
    }

    /// A part of the program's configuration: "apiBroker", or with points between, "apiBroker.limits".
    ///
    /// # Errors
    /// [`ConfigError::Missing`] if it is not there, [`ConfigError::Refused`] if it is not what the type asks for.
    pub fn config_at<T: DeserializeOwned>(&self, path: &str) -> Result<T, ConfigError> {
        let configuration = &self.inner.configuration;
        let missing = || ConfigError::Missing { path: path.to_owned() };
        let mut keys = path.split('.');
        let first = keys.next().and_then(|key| configuration.value.get(key));
        let found = keys.try_fold(first.ok_or_else(missing)?, |value, key| value.get(key));
        configuration.read(found.ok_or_else(missing)?, path)
    }
}

/// Tables merge, everything else is replaced.
fn lay(below: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match (below.get_mut(&key), value) {
            (Some(Value::Object(below)), Value::Object(over)) => lay(below, over),
            (Some(_) | None, value) => {
                below.insert(key, value);
            }
        }
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "a table",
    }
}

/// serde's words without the value that it has found, which could be a password. In what it says of types and variants
/// the value comes first, in quotes, and what was expected last.
fn without_value(message: &str) -> String {
    let quoted = ["invalid type: ", "invalid value: ", "unknown variant "];
    if !quoted.iter().any(|start| message.starts_with(start)) {
        return message.to_owned();
    }
    let kind = message.split(['`', '"']).next().unwrap_or_default().trim_end();
    match message.rfind(", expected ") {
        Some(at) => format!("{}{}", kind.split(", expected ").next().unwrap_or_default(), &message[at..]),
        None => kind.to_owned(),
    }
}

fn place(at: &Option<(String, usize)>) -> String {
    at.as_ref().map_or(String::new(), |(file, line)| format!("{file}:{line}: "))
}

fn named(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("`{path}`: ") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn layered(value: Value, environment: &str) -> Result<Value, ConfigError> {
        Configuration::layered(value, environment).map(|layered| Value::Object(layered.value))
    }

    #[test]
    fn tables_merge_and_arrays_are_replaced() {
        let config = json!({
            "web": { "port": 3000, "hosts": ["a", "b"] }, "debug": true,
            "default": { "web": { "title": "Shop" } },
            "production": { "web": { "port": 80, "hosts": ["c"] }, "debug": false },
        });
        let expected = json!({ "web": { "port": 80, "hosts": ["c"], "title": "Shop" }, "debug": false });
        assert_eq!(layered(config.clone(), "production").unwrap(), expected);
        let default = layered(config, "default").unwrap();
        assert_eq!(default["web"], json!({ "port": 3000, "hosts": ["a", "b"], "title": "Shop" }));
    }

    #[test]
    fn an_environment_without_a_table_is_refused() {
        for config in [json!({}), json!({ "production": 1 }), json!({ "staging": {} })] {
            let error = layered(config, "production").unwrap_err();
            assert_eq!(error, ConfigError::Environment { name: "production".into() });
        }
        assert_eq!(layered(json!([]), "default"), Err(ConfigError::NoTable { found: "an array".into() }));
    }

    #[test]
    fn what_is_refused_is_named_without_its_value() {
        for (said, kept) in [
            ("invalid type: string \"a, expected b\", expected u16", "invalid type: string, expected u16"),
            ("invalid value: integer `70000`, expected u16", "invalid value: integer, expected u16"),
            ("invalid type: map, expected a string", "invalid type: map, expected a string"),
            ("unknown variant `zqx`, expected `a` or `b`", "unknown variant, expected `a` or `b`"),
            ("missing field `port`", "missing field `port`"),
        ] {
            assert_eq!(without_value(said), kept);
        }
    }
}
