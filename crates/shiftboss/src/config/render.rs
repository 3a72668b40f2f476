//! A finding as people read it: what, where, the line itself with carets, what to do; at most 80 columns of plain text.
//!
//! What to point at is the reader's; colour is the caller's.

use std::fmt;

/// One finding about a configuration file. Its [`Display`](fmt::Display) is the whole text, without a final newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the file is refused for it.
    pub severity: Severity,
    /// The file, as the caller named it.
    pub file: String,
    /// Where in the file; none when it is about the file as a whole.
    pub place: Option<Place>,
    /// Which, what and why, on one line.
    pub message: String,
    /// What stands beside the carets: mostly what to write instead.
    pub label: Option<String>,
    /// What to do, where that needs more words.
    pub help: Option<String>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is taken; something in it has no effect.
    Warning,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The line to show; none where it could hold a secret.
    pub(super) excerpt: Option<Excerpt>,
}

/// A part of a line, fit for a terminal, and what of it is pointed at (in characters).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Excerpt {
    pub(super) text: String,
    pub(super) from: usize,
    pub(super) carets: usize,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = match self.severity {
            Severity::Error => "error: ",
            Severity::Warning => "warning: ",
        };
        let indent = " ".repeat(title.len());
        write!(f, "{title}{}", wrap(&self.message, WIDTH - title.len()).join(&format!("\n{indent}")))?;
        let Some(place) = &self.place else {
            write!(f, "\n  ┌ {}", clean(&self.file))?;
            return self.rest(f, 1);
        };
        let gutter = place.line.to_string().len();
        write!(f, "\n{:gutter$} ┌ {}:{}:{}", "", clean(&self.file), place.line, place.column)?;
        match &place.excerpt {
            Some(excerpt) => self.excerpt(f, place.line, excerpt)?,
            None => self.label_below(f, gutter)?,
        }
        self.rest(f, gutter)
    }
}

impl Diagnostic {
    fn excerpt(&self, f: &mut fmt::Formatter<'_>, line: usize, excerpt: &Excerpt) -> fmt::Result {
        let gutter = line.to_string().len();
        write!(f, "\n{line} │ {}", excerpt.text)?;
        write!(f, "\n{:gutter$} │ {:from$}{}", "", "", "^".repeat(excerpt.carets), from = excerpt.from)?;
        match &self.label {
            Some(label) if gutter + 4 + excerpt.from + excerpt.carets + label.chars().count() <= WIDTH => {
                write!(f, " {label}")
            }
            Some(_) | None => self.label_below(f, gutter),
        }
    }

    fn label_below(&self, f: &mut fmt::Formatter<'_>, gutter: usize) -> fmt::Result {
        let lines = self.label.iter().flat_map(|label| wrap(label, WIDTH - gutter - 3));
        lines.into_iter().try_for_each(|line| write!(f, "\n{:gutter$} │ {line}", ""))
    }

    fn rest(&self, f: &mut fmt::Formatter<'_>, gutter: usize) -> fmt::Result {
        let Some(help) = &self.help else { return Ok(()) };
        let indent = " ".repeat(gutter + 3 + "help: ".len());
        let lines = wrap(help, WIDTH - indent.len());
        write!(f, "\n{:gutter$} └ help: {}", "", lines.join(&format!("\n{indent}")))
    }
}

/// Breaks a text between words into lines of at most this many characters; a longer word keeps its line.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut columns = 0;
    for word in clean(text).split(' ') {
        let length = word.chars().count();
        if columns > 0 && columns + 1 + length > width {
            lines.push(std::mem::take(&mut line));
            columns = 0;
        }
        if columns > 0 {
            line.push(' ');
            columns += 1;
        }
        line.push_str(word);
        columns += length;
    }
    lines.push(line);
    lines
}

fn clean(text: &str) -> String {
    text.chars().map(printable).collect()
}

/// The character itself, a space for a tab, `\u{fffd}` for what could steer a terminal or reorder the line.
pub(super) fn printable(character: char) -> char {
    match character {
        '\t' => ' ',
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => {
            '\u{fffd}'
        }
        other if other.is_control() => '\u{fffd}',
        other => other,
    }
}

/// Columns of a line of text.
pub(super) const WIDTH: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnostic() -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            file: "shiftboss.toml".into(),
            place: Some(Place {
                line: 12,
                column: 3,
                excerpt: Some(Excerpt { text: "  worker = 4".into(), from: 2, carets: 6 }),
            }),
            message: "unknown key `worker` in broker `api`".into(),
            label: Some("did you mean `workers`?".into()),
            help: None,
        }
    }

    #[test]
    fn a_finding_shows_the_line_and_points_at_the_word() {
        let expected = "\
error: unknown key `worker` in broker `api`
   ┌ shiftboss.toml:12:3
12 │   worker = 4
   │   ^^^^^^ did you mean `workers`?";
        assert_eq!(diagnostic().to_string(), expected);
    }

    #[test]
    fn no_line_is_wider_than_80_columns() {
        let mut long = diagnostic();
        long.message = "many words ".repeat(30);
        long.label = Some("more words ".repeat(30));
        long.help = Some("yet more words ".repeat(30));
        for line in long.to_string().lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn nothing_in_a_finding_steers_the_terminal() {
        let mut steering = diagnostic();
        steering.message = "a\u{1b}[2Jb\u{202e}c".into();
        steering.file = "x\u{7}\n".into();
        let shown = steering.to_string();
        assert!(
            shown.chars().all(|character| character == '\n' || character == printable(character)),
            "{shown:?}"
        );
        assert_eq!(shown.lines().count(), 4);
    }
}
