//! The configuration file: TOML read into [`AppOptions`], with every mistake shown at its place and all at once.
//!
//! [`read`] takes a file, [`parse`] a text. What they find is a [`Diagnostic`] each: file, line, column, the line
//! with carets, what was expected, the nearest valid word. Whether programs and folders exist is asked by `check_files`.
//!
//! A file may describe several environments: `[env.production.broker.api]` is laid over `[broker.api]`. All of them are
//! checked, whichever is chosen by [`Loaded::choose`]. `[settings]` is kept for the program that the file belongs to.

mod app;
mod broker;
mod environments;
mod explain;
mod file;
mod files;
#[cfg(feature = "schedule")]
mod hours;
mod keys;
mod listen;
mod name;
mod policy;
mod problem;
mod render;
mod secrets;
mod settings;
mod source;
mod table;
#[cfg(test)]
mod tests;
mod value;
#[cfg(feature = "watch")]
mod watched;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::Path;

use toml::Spanned;
use toml::de::DeTable;

pub use name::app_of;
pub use render::{Diagnostic, Place, Severity};
pub use value::{DurationError, parse_duration, show_duration};

use crate::options::{AppOptions, BrokerOptions};
use files::Places;
use problem::{Findings, Problem, Reader, Span};
pub(crate) use settings::Settings;
use source::Source;

/// A configuration without mistakes.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it asks for in the chosen environment, at first in `default`; brokers in order of declaration.
    pub options: AppOptions,
    /// What has no effect, in order of the file.
    pub warnings: Vec<Diagnostic>,
    pub(crate) settings: Settings,
    lines: Lines,
    /// Where to point at what is not there.
    places: Places,
    /// What it asks for in each other environment.
    others: Vec<(String, Layer)>,
}

/// What a file asks for in one environment.
#[derive(Clone, Debug)]
struct Layer {
    options: AppOptions,
    settings: Settings,
    lines: Lines,
    places: Places,
}

/// An environment was asked for that the configuration does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no environment `{name}` in the configuration; it has: {}", has.join(", "))]
pub struct UnknownEnvironment {
    /// What was asked for.
    pub name: String,
    /// Those that there are, `default` first.
    pub has: Vec<String>,
}

/// Line of each key that was set, by broker ("" at the top) and dotted key.
type Lines = BTreeMap<(String, String), usize>;

/// All that is wrong with a configuration, in order of the file; at least one. Displays as the whole text for people.
#[derive(Clone, Debug)]
pub struct ConfigErrors {
    errors: Vec<Diagnostic>,
    left_out: usize,
    /// What the file asks for as far as it makes sense, in each environment.
    layers: Vec<(String, Layer)>,
}

/// Reads a configuration file: a regular file of at most 1 MiB. Never waits, whatever the path leads to.
///
/// The app's default name is that of the file's directory.
///
/// # Errors
/// Everything that is wrong with the file.
pub fn read(path: &Path) -> Result<Loaded, ConfigErrors> {
    read_as(path, Reader::Command)
}

/// The same for a program with brokers of its own: no broker and no command has to be in the file.
pub(crate) fn read_for_program(path: &Path) -> Result<Loaded, ConfigErrors> {
    read_as(path, Reader::Program)
}

fn read_as(path: &Path, reader: Reader) -> Result<Loaded, ConfigErrors> {
    let text = file::text(path)?;
    let loaded = load(&path.display().to_string(), &text, file::directory_name(path).as_deref(), reader);
    loaded.map(|loaded| loaded.beside(path))
}

/// Reads a configuration from its text; `name` is the file's name in messages, and the directory in it the app's
/// default name. Touches no file.
///
/// # Errors
/// Everything that is wrong with the text.
pub fn parse(name: &str, text: &str) -> Result<Loaded, ConfigErrors> {
    let directory = Path::new(name).parent().and_then(Path::file_name);
    load(name, text, directory.map(|name| name.to_string_lossy()).as_deref(), Reader::Command)
}

/// Without the byte order mark that some editors begin a file with.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn load(name: &str, text: &str, default_app: Option<&str>, reader: Reader) -> Result<Loaded, ConfigErrors> {
    let text = without_mark(text);
    let (mut root, syntax) = DeTable::parse_recoverable(text);
    let source = Source::new(name, text, secrets::of(root.get_ref()));
    if !syntax.is_empty() {
        return Err(ConfigErrors::new(one_a_line(&source, syntax)));
    }
    let mut problems = Vec::new();
    let overlays = {
        let mut findings = Findings::default();
        let overlays = environments::take(root.as_mut(), &mut findings);
        problems.append(&mut findings.problems);
        overlays
    };
    let mut said = HashSet::new();
    let mut layer = |root: &_, environment: Option<&str>| {
        let mut findings = Findings { reader, ..Findings::default() };
        let asked = app::read(root, default_app, &mut findings);
        // What is wrong everywhere is said once.
        let mut news = findings.problems;
        news.retain(|problem| said.insert((problem.span.clone(), problem.message.clone())));
        if let Some(environment) = environment {
            let of_it = |problem: &mut Problem| {
                problem.message = format!("environment `{environment}`: {}", problem.message);
            };
            news.iter_mut().for_each(of_it);
        }
        problems.append(&mut news);
        Layer::new(asked, &findings.set, &source)
    };
    let base = layer(&root, None);
    let overlaid = overlays.into_iter().map(|(name, overlay)| {
        let whole = Spanned::new(root.span(), environments::overlaid(root.get_ref(), &overlay));
        let layer = layer(&whole, Some(&name));
        (name, layer)
    });
    let others: Vec<(String, Layer)> = overlaid.collect();
    // What is about the whole file comes last.
    problems.sort_by_key(|problem| problem.span.as_ref().map_or(usize::MAX, |span| span.start));
    let (errors, warnings): (Vec<_>, Vec<_>) =
        problems.into_iter().partition(|problem| problem.severity == Severity::Error);
    if !errors.is_empty() {
        let left_out = errors.len().saturating_sub(SHOWN);
        let errors = errors.into_iter().take(SHOWN).map(|problem| source.diagnose(problem)).collect();
        let base = (environments::DEFAULT.to_owned(), base);
        return Err(ConfigErrors { errors, left_out, layers: [base].into_iter().chain(others).collect() });
    }
    let Layer { options, settings, lines, places } = base;
    let warnings = warnings.into_iter().take(SHOWN).map(|problem| source.diagnose(problem)).collect();
    Ok(Loaded { options, warnings, settings, lines, places, others })
}

impl Layer {
    fn new(asked: app::Asked, set: &BTreeMap<(String, String), Span>, source: &Source<'_>) -> Self {
        let line = |span: &Span| source.line(span.start);
        Layer {
            places: files::places(&asked.options, set, source),
            lines: set.iter().map(|(key, span)| (key.clone(), line(span))).collect(),
            settings: Settings {
                value: asked.settings,
                lines: asked.spans.iter().map(|(path, span)| (path.clone(), line(span))).collect(),
            },
            options: asked.options,
        }
    }
}

/// The parser goes on after an error; what else it says about the same line follows from the first.
fn one_a_line(source: &Source<'_>, mut errors: Vec<toml::de::Error>) -> Vec<Diagnostic> {
    errors.sort_by_key(|error| error.span().map_or(usize::MAX, |span| span.start));
    let mut shown: Vec<Diagnostic> = Vec::new();
    for error in &errors {
        let line = error.span().map(|span| source.line(span.start));
        let known = shown.last().and_then(|last| last.place.as_ref()).map(|place| place.line);
        if shown.is_empty() || line != known {
            shown.push(source.diagnose_syntax(error));
        }
        if shown.len() == SHOWN {
            break;
        }
    }
    shown
}

impl Loaded {
    /// The same configuration in another environment.
    ///
    /// # Errors
    /// [`UnknownEnvironment`] if the file has no `[env.NAME]` for it and it is not `default`.
    pub fn choose(mut self, environment: &str) -> Result<Loaded, UnknownEnvironment> {
        if environment == environments::DEFAULT {
            return Ok(self);
        }
        let Some(at) = self.others.iter().position(|(name, _)| name == environment) else {
            let others = self.others.into_iter().map(|(name, _)| name);
            let has = std::iter::once(environments::DEFAULT.to_owned()).chain(others).collect();
            return Err(UnknownEnvironment { name: environment.to_owned(), has });
        };
        let (_, chosen) = self.others.remove(at);
        let Loaded { options, warnings, settings, lines, places, mut others } = self;
        others.insert(0, (environments::DEFAULT.to_owned(), Layer { options, settings, lines, places }));
        let Layer { options, settings, lines, places } = chosen;
        Ok(Loaded { options, warnings, settings, lines, places, others })
    }

    /// What is watched lies beside the file.
    #[cfg_attr(not(feature = "watch"), expect(unused_mut, unused_variables, reason = "nothing is watched"))]
    fn beside(mut self, path: &Path) -> Loaded {
        #[cfg(feature = "watch")]
        for options in self.others.iter_mut().map(|(_, layer)| &mut layer.options).chain([&mut self.options])
        {
            let folder =
                path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            for (_, broker) in &mut options.brokers {
                broker.watch = broker.watch.take().map(|watch| watch.relative_to(folder).settled(None));
            }
        }
        self
    }

    /// Every key of every broker with its value, and the line it was set on or that it is a default. Variables of
    /// environments are named, their values never shown.
    #[must_use]
    pub fn explain(&self) -> String {
        explain::explain(self)
    }

    /// What keeps workers from being started now, seen from this process: programs and working directories that are not
    /// there.
    #[must_use]
    pub fn check_files(&self) -> Vec<Diagnostic> {
        files::missing(&self.options, &self.places, |_| true)
    }

    /// The same of the environments that are not chosen, what is wrong in the chosen one, too, left out: warnings, since
    /// they may be for another machine.
    #[must_use]
    pub fn check_other_files(&self) -> Vec<Diagnostic> {
        let mut said = self.check_files();
        let known = said.len();
        for (name, layer) in &self.others {
            files::add_warnings(name, &layer.options, &layer.places, &mut said);
        }
        said.split_off(known)
    }
}

impl ConfigErrors {
    /// One that is about the file as a whole.
    pub(crate) fn of_file(path: &Path, message: String) -> Self {
        let name = path.display().to_string();
        ConfigErrors::new(vec![Source::new(&name, "", Vec::new()).diagnose(Problem::of_file(message))])
    }

    fn new(errors: Vec<Diagnostic>) -> Self {
        ConfigErrors { errors, left_out: 0, layers: Vec::new() }
    }

    /// As [`Loaded::check_files`], of this environment, as far as the file makes sense.
    #[must_use]
    pub fn check_files(&self, environment: &str) -> Vec<Diagnostic> {
        let chosen = self.layers.iter().find(|(name, _)| name == environment).or(self.layers.first());
        chosen.map_or_else(Vec::new, |(_, layer)| {
            let Layer { options, places, lines, .. } = layer;
            // What was wrong is as if it had not been said.
            let is_said = |broker: &str, key: &str| lines.contains_key(&(broker.to_owned(), key.to_owned()));
            let brokers: BTreeMap<&str, &BrokerOptions> =
                options.brokers.iter().map(|(name, broker)| (name.as_str(), broker)).collect();
            files::missing(options, places, |broker| {
                brokers.get(broker).is_some_and(|options| {
                    !options.command.is_empty()
                        && (options.cwd.is_some() || !is_said(broker, "cwd"))
                        && (!options.environment.is_empty() || !is_said(broker, "environment"))
                })
            })
        })
    }

    /// The errors in order of the file, at most the first 100.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.errors.iter()
    }

    /// How many there are in all.
    #[must_use]
    pub fn count(&self) -> usize {
        self.errors.len() + self.left_out
    }
}

impl fmt::Display for ConfigErrors {
    /// One error after the other with an empty line between, without a final newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.errors.iter().enumerate() {
            let between = if at == 0 { "" } else { "\n\n" };
            write!(f, "{between}{error}")?;
        }
        if self.left_out > 0 {
            write!(f, "\n\n… and {} more errors", self.left_out)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// So many errors are more than anybody reads.
const SHOWN: usize = 100;
