//! The text of a file: turns spans of bytes into lines, columns and excerpts that are safe to show.

use super::problem::{Problem, Span};
use super::render::{Diagnostic, Excerpt, Place, WIDTH, printable};
use super::secrets;

pub(super) struct Source<'s> {
    name: &'s str,
    text: &'s str,
    /// Where each line starts.
    lines: Vec<usize>,
    /// What is never shown, in order and apart from each other.
    secrets: Vec<Span>,
}

impl<'s> Source<'s> {
    pub(super) fn new(name: &'s str, text: &'s str, mut secrets: Vec<Span>) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        secrets.sort_by_key(|span| span.start);
        Source { name, text, lines: std::iter::once(0).chain(breaks).collect(), secrets }
    }

    /// The line of a byte, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at)
    }

    pub(super) fn diagnose(&self, problem: Problem) -> Diagnostic {
        let place = problem.span.map(|span| self.place(&span));
        let Problem { severity, message, label, help, .. } = problem;
        Diagnostic { severity, file: self.name.to_owned(), place, message, label, help }
    }

    /// What the parser of TOML says, without the line where that could hold a secret.
    pub(super) fn diagnose_syntax(&self, error: &toml::de::Error) -> Diagnostic {
        let message = error.message().trim_end_matches(", expected nothing");
        let mut diagnostic = self.diagnose(Problem {
            span: error.span(),
            ..Problem::of_file(format!("not valid TOML: {message}"))
        });
        let secret = error.span().is_none_or(|span| {
            let (start, end) = self.bounds(self.line(span.start));
            secrets::may_stand_in(self.text, start..end)
        });
        if let Some(place) = diagnostic.place.as_mut().filter(|_| secret) {
            place.excerpt = None;
        }
        diagnostic
    }

    fn place(&self, span: &Span) -> Place {
        let at = floor(self.text, span.start);
        let line = self.line(at);
        let (start, end) = self.bounds(line);
        let column = self.text[start..at.max(start)].chars().count() + 1;
        let stop = floor(self.text, span.end.clamp(at, end.max(at)));
        Place { line, column, excerpt: Some(self.excerpt(start..end, at.min(end)..stop)) }
    }

    /// Start and end of a line, without its line break.
    fn bounds(&self, line: usize) -> (usize, usize) {
        let start = self.lines[line - 1];
        let end = self.lines.get(line).map_or(self.text.len(), |next| next - 1);
        (start, start + self.text[start..end].trim_end_matches('\r').len())
    }

    /// The part of the line around what is pointed at, secrets left out.
    fn excerpt(&self, line: Span, pointed: Span) -> Excerpt {
        let from = floor(self.text, pointed.start.saturating_sub(REACH).max(line.start));
        let to = floor(self.text, (pointed.start + REACH).min(line.end));
        let mut secrets =
            self.secrets[self.secrets.partition_point(|secret| secret.end <= from)..].iter().peekable();
        let mut shown = Vec::new();
        let (mut first, mut last) = (None, None);
        let mut hiding = false;
        for (offset, character) in self.text[from..to].char_indices() {
            let at = from + offset;
            first = first.or((at >= pointed.start).then_some(shown.len()));
            last = last.or((at >= pointed.end).then_some(shown.len()));
            while secrets.peek().is_some_and(|secret| secret.end <= at) {
                secrets.next();
                hiding = false;
            }
            let secret = secrets.peek().is_some_and(|secret| secret.start <= at);
            match (secret, hiding) {
                (false, _) => shown.push(printable(character)),
                (true, false) => shown.push('…'),
                (true, true) => {}
            }
            hiding = secret;
        }
        let first = first.unwrap_or(shown.len());
        let carets = last.unwrap_or(shown.len()).saturating_sub(first).max(1);
        let room = WIDTH - self.line(line.start).to_string().len() - 3;
        cut(&shown, first, carets, room, from > line.start, to < line.end)
    }
}

/// Fits a line into the room, with what is pointed at in sight.
fn cut(
    shown: &[char],
    first: usize,
    carets: usize,
    room: usize,
    more_before: bool,
    more_after: bool,
) -> Excerpt {
    if shown.len() < room && !more_before && !more_after {
        return Excerpt { text: shown.iter().collect(), from: first, carets };
    }
    let start = if first + carets < room && !more_before { 0 } else { first.saturating_sub(BEFORE) };
    let end = shown.len().min(start + room - 2);
    let mut text = String::new();
    let before = usize::from(start > 0 || more_before);
    text.extend(std::iter::repeat_n('…', before));
    text.extend(&shown[start..end]);
    text.extend((end < shown.len() || more_after).then_some('…'));
    let from = first - start + before;
    Excerpt { text, from, carets: carets.min((room - 1).saturating_sub(from)).max(1) }
}

/// The last start of a character that is not after this byte.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// Bytes looked at on either side of what is pointed at: enough for a line of four-byte characters.
const REACH: usize = 4 * WIDTH;
/// Characters kept before what is pointed at when a line is cut.
const BEFORE: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, span: Span, secrets: Vec<Span>) -> Vec<String> {
        let diagnostic = Source::new("f", text, secrets).diagnose(Problem::at(span, "wrong"));
        diagnostic.to_string().lines().skip(1).map(str::to_owned).collect()
    }

    #[test]
    fn columns_count_characters_and_line_breaks_of_both_kinds() {
        assert_eq!(shown("a = 1\r\nü = x\r\n", 12..13, vec![]), ["  ┌ f:2:5", "2 │ ü = x", "  │     ^"]);
    }

    #[test]
    fn secrets_are_left_out_with_their_length_and_the_carets_still_fit() {
        let text = "e = { A = \"hidden\", B = 1 }";
        assert_eq!(
            shown(text, 24..25, std::iter::once(10..18).collect()),
            ["  ┌ f:1:25", "1 │ e = { A = …, B = 1 }", "  │                  ^"]
        );
    }

    #[test]
    fn a_wide_line_is_cut_around_what_is_pointed_at() {
        let text = format!("{}HERE{}", "a".repeat(5000), "b".repeat(5000));
        let lines = shown(&text, 5000..5004, vec![]);
        assert_eq!(lines[0], "  ┌ f:1:5001");
        let at = lines[1]
            .chars()
            .collect::<Vec<_>>()
            .windows(4)
            .position(|part| part.iter().collect::<String>() == "HERE");
        assert_eq!(lines[2].chars().position(|character| character == '^'), at);
        assert!(lines.iter().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn any_span_of_any_text_can_be_shown() {
        let text = "ab\r\n\nü…\n\n";
        for start in 0..=text.len() {
            for end in start..=text.len() {
                assert!(!shown(text, start..end, vec![]).is_empty());
            }
        }
        assert!(!shown("", 0..0, vec![]).is_empty());
    }
}
