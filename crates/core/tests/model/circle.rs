//! Circles: states that lead back to each other.

use std::collections::BTreeSet;

use crate::choices::Label;
use crate::seen::Key;

/// A state on its way to be known.
pub(crate) struct Node {
    pub(crate) key: Key,
    /// What must happen in it sooner or later.
    pub(crate) must: Vec<Label>,
    /// What leads from it to other open ones, and to which.
    pub(crate) ways: Vec<(Label, u32)>,
}

/// Whether one can stay among these states for ever although nothing that could happen all the time is put off for
/// ever; how, in words.
pub(crate) fn goes_on_for_ever(component: &[Node], first: u32) -> Option<String> {
    let (one, others) = component.split_first()?;
    let inside = |to: u32| to >= first;
    let taken: BTreeSet<Label> = component
        .iter()
        .flat_map(|node| &node.ways)
        .filter(|(_, to)| inside(*to))
        .map(|(label, _)| *label)
        .collect();
    let put_off =
        |label: &&Label| !taken.contains(*label) && others.iter().all(|node| node.must.contains(*label));
    if one.must.iter().any(|label| put_off(&label)) {
        return None;
    }
    let taken: Vec<String> = taken.iter().map(|(kind, rank)| format!("{kind} ({rank})")).collect();
    Some(format!("{} states lead back to each other by: {}", component.len(), taken.join(", ")))
}
