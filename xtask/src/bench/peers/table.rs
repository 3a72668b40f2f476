//! A table of the page: a line for each peer, with what was measured or why it was not.

/// What people read from left to right.
pub(super) struct Table {
    pub(super) title: String,
    pub(super) columns: Vec<Column>,
    pub(super) lines: Vec<Line>,
    /// Why shiftboss may be behind in it.
    pub(super) why: String,
}

#[derive(Clone)]
pub(super) struct Column {
    pub(super) name: &'static str,
    /// Digits behind the point.
    pub(super) digits: usize,
    pub(super) better: Better,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Better {
    Less,
    More,
    Neither,
}

pub(super) struct Line {
    pub(super) peer: &'static str,
    /// As many as there are columns, or why there are none.
    pub(super) cells: Result<Vec<Cell>, String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Number(f64),
    Text(String),
}

pub(super) const fn column(name: &'static str, digits: usize, better: Better) -> Column {
    Column { name, digits, better }
}

impl Table {
    pub(super) fn markdown(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|column| column.name).collect();
        let mut text = format!("### {}\n\n| | {} |\n|---|", self.title, names.join(" | "));
        text.extend(names.iter().map(|_| "--:|"));
        text.push('\n');
        for line in &self.lines {
            text += &format!("| {} | {} |\n", line.shown_name(), self.shown(line).join(" | "));
        }
        text
    }

    /// Adds a column: the first one, as so many times the baseline.
    pub(super) fn beside_bare(&mut self) {
        let bare = self.lines.iter().find(|line| line.peer == BARE).and_then(|line| line.number(0));
        let Some(bare) = bare.filter(|bare| *bare > 0.0) else { return };
        self.columns.insert(1, column("x bare", 2, Better::Neither));
        for line in &mut self.lines {
            let times = line.number(0).map_or(Cell::Text(String::new()), |value| Cell::Number(value / bare));
            if let Ok(cells) = &mut line.cells {
                cells.insert(1, times);
            }
        }
    }

    /// A sentence for each column in which somebody else is ahead.
    pub(super) fn behind(&self) -> Vec<String> {
        let columns = self.columns.iter().enumerate();
        columns.filter_map(|(at, column)| self.behind_in(at, column)).collect()
    }

    fn behind_in(&self, at: usize, column: &Column) -> Option<String> {
        let ours: Vec<f64> =
            self.lines.iter().filter(|line| line.is_ours()).filter_map(|line| line.number(at)).collect();
        let best = ours.iter().copied().reduce(|one, other| match column.better {
            Better::Less => one.min(other),
            Better::More | Better::Neither => one.max(other),
        })?;
        let is_ahead = |value: f64| match column.better {
            Better::Less => value < best * (1.0 - MARGIN),
            Better::More => value > best * (1.0 + MARGIN),
            Better::Neither => false,
        };
        let ahead = self.lines.iter().filter(|line| !line.is_ours() && line.peer != BARE);
        let ahead = ahead.filter_map(|line| Some((line.peer, line.number(at)?)));
        let ahead: Vec<String> = ahead
            .filter(|(_, value)| is_ahead(*value))
            .map(|(peer, value)| format!("{peer} {}", shown(value, column.digits)))
            .collect();
        (!ahead.is_empty()).then(|| {
            format!(
                "- **{}, {}**: {}; shiftboss {}. {}",
                self.title,
                column.name,
                ahead.join(", "),
                shown(best, column.digits),
                self.why
            )
        })
    }

    fn shown(&self, line: &Line) -> Vec<String> {
        match &line.cells {
            Err(why) => {
                let mut cells = vec![format!("not measured: {}", in_a_cell(why))];
                cells.resize(self.columns.len(), String::new());
                cells
            }
            Ok(cells) => cells
                .iter()
                .zip(&self.columns)
                .map(|(cell, column)| match cell {
                    Cell::Number(value) => shown(*value, column.digits),
                    Cell::Text(text) => in_a_cell(text),
                })
                .collect(),
        }
    }
}

impl Line {
    fn is_ours(&self) -> bool {
        self.peer.starts_with(OURS)
    }

    fn shown_name(&self) -> String {
        if self.is_ours() { format!("**{}**", self.peer) } else { self.peer.to_owned() }
    }

    fn number(&self, at: usize) -> Option<f64> {
        match self.cells.as_ref().ok()?.get(at)? {
            Cell::Number(value) => Some(*value),
            Cell::Text(_) => None,
        }
    }
}

/// With a thin mark at every thousand.
pub(super) fn shown(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), ""), |(whole, rest)| (whole, rest));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if rest.is_empty() { format!("{sign}{grouped}") } else { format!("{sign}{grouped}.{rest}") }
}

/// One line without the mark between cells, and not too long.
fn in_a_cell(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "/");
    if line.chars().count() > LONGEST { line.chars().take(LONGEST).chain(['…']).collect() } else { line }
}

/// The baseline, of which nobody is ahead who does more.
pub(super) const BARE: &str = "bare";
const OURS: &str = "shiftboss";
/// What lies within is no difference.
const MARGIN: f64 = 0.05;
const LONGEST: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    fn table(lines: &[(&'static str, Result<f64, &str>)]) -> Table {
        let lines = lines.iter().map(|(peer, cell)| Line {
            peer,
            cells: cell.map(|value| vec![Cell::Number(value)]).map_err(str::to_owned),
        });
        Table {
            title: "Crash".into(),
            columns: vec![column("ms", 1, Better::Less)],
            lines: lines.collect(),
            why: "It does more.".into(),
        }
    }

    #[test]
    fn only_peers_that_are_ahead_are_named() {
        let behind =
            table(&[("bare", Ok(1.0)), ("shiftboss", Ok(2.0)), ("s6", Ok(1.5)), ("PM2", Ok(9.0))]).behind();
        assert_eq!(behind, ["- **Crash, ms**: s6 1.5; shiftboss 2.0. It does more."]);
        assert!(table(&[("shiftboss", Ok(2.0)), ("s6", Ok(1.95)), ("PM2", Err("no"))]).behind().is_empty());
    }

    #[test]
    fn a_peer_that_is_not_there_keeps_its_line() {
        let text = table(&[("s6", Err("no | apt"))]).markdown();
        assert!(text.ends_with("| s6 | not measured: no / apt |\n"), "{text}");
    }

    #[test]
    fn thousands_are_marked() {
        assert_eq!(["1", "1,000", "-12,345.50"], [shown(1.0, 0), shown(1e3, 0), shown(-12345.5, 2)]);
    }
}
