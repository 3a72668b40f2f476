//! Which parts of a file may never be shown: values of environments and of the program's settings, also
//! where the word before them is misspelt.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys;
use super::problem::Span;

/// Where in the file a value stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Zone {
    Top,
    Overlays,
    /// One environment of the file: keys as at the top.
    Overlay,
    Brokers,
    Broker,
    /// Below a key that is known to hold no secret.
    Known,
    /// A key that could be anything, a misspelt `environment` too: texts are hidden, and all that is in a table.
    Unknown,
    /// Everything is hidden but the names.
    Environment,
}

/// The spans that hold secrets, in no order.
pub(super) fn of(root: &DeTable<'_>) -> Vec<Span> {
    let mut found = Vec::new();
    in_table(root, Zone::Top, &mut found);
    found
}

/// Whether this line of a text that is no TOML could hold a secret. Without a whole parse nobody knows where a value
/// starts and ends, so only lines are trusted that are a header or begin with a known key, have no more inline tables
/// than that key, and no "env", no "setting" and no other header before them in the tables of their broker.
pub(super) fn may_stand_in(text: &str, line: Span) -> bool {
    let shown = &text[line.clone()];
    let word = shown.trim_start().split(|character: char| !character.is_alphanumeric() && character != '_');
    let word = word.into_iter().next().unwrap_or_default();
    let tables = usize::from(["backoff", "ready", "recycle", "workers"].contains(&word));
    let known = (keys::TOP.known.contains(&word) || keys::BROKER.known.contains(&word))
        && shown.matches('{').count() <= tables;
    let header = shown.starts_with('[') && !shown.contains(['"', '\'', '=']);
    let broker = match text[..line.start].rfind("\n[broker") {
        _ if shown.starts_with("[broker") => line.start,
        Some(before) => before,
        None => 0,
    };
    let before = text[broker..line.end].to_ascii_lowercase();
    let mut above = text[broker..line.start].lines().map(str::trim_start);
    !(known || header)
        || before.contains("env")
        || before.contains("setting")
        || above.any(|line| line.starts_with('[') && !line.starts_with("[broker"))
}

fn in_table(table: &DeTable<'_>, zone: Zone, found: &mut Vec<Span>) {
    for (key, value) in table {
        let below = zone.below(key.get_ref());
        // `{ "NAME=VALUE" = … }`
        if below == Zone::Environment && key.get_ref().contains('=') {
            found.push(key.span());
        }
        in_value(value, below, found);
    }
}

fn in_value(value: &Spanned<DeValue<'_>>, zone: Zone, found: &mut Vec<Span>) {
    match value.get_ref() {
        DeValue::Table(table) => in_table(table, zone, found),
        DeValue::Array(array) => array.iter().for_each(|value| in_value(value, zone, found)),
        DeValue::String(_) if zone != Zone::Known => found.push(value.span()),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => found.extend(zone.hides_all().then(|| value.span())),
    }
}

impl Zone {
    /// Also what is no text.
    fn hides_all(self) -> bool {
        match self {
            Zone::Overlays | Zone::Overlay | Zone::Environment => true,
            Zone::Top | Zone::Brokers | Zone::Broker | Zone::Known | Zone::Unknown => false,
        }
    }

    fn below(self, key: &str) -> Zone {
        match self {
            Zone::Top if key == "env" => Zone::Overlays,
            Zone::Overlays => Zone::Overlay,
            Zone::Top | Zone::Overlay if key == "app" || key == "upgrade" => Zone::Known,
            Zone::Top | Zone::Overlay if key == "broker" => Zone::Brokers,
            Zone::Top if key == keys::SETTINGS => Zone::Environment,
            Zone::Brokers => Zone::Broker,
            Zone::Top | Zone::Broker if key == "environment" => Zone::Environment,
            Zone::Top | Zone::Broker if keys::BROKER.known.contains(&key) => Zone::Known,
            Zone::Top | Zone::Broker if key.contains("env") => Zone::Environment,
            Zone::Top | Zone::Broker => Zone::Unknown,
            Zone::Known => Zone::Known,
            Zone::Overlay | Zone::Unknown | Zone::Environment => Zone::Environment,
        }
    }
}
