//! What the demo shows while it runs: lines that stay, and below them, on a terminal, a picture that is drawn over.

use anstyle::Style;

use super::judge::Finding;
use crate::output::{BAD, FAINT, GOOD, Output};
use crate::text;

/// Standard error, as the demo uses it.
pub(super) struct Screen<'a> {
    output: &'a Output,
    picture: Vec<String>,
}

impl<'a> Screen<'a> {
    pub(super) fn new(output: &'a Output) -> Self {
        Screen { output, picture: Vec::new() }
    }

    /// Pictures are drawn.
    pub(super) fn is_drawn(&self) -> bool {
        self.output.err.redraw && !self.output.quiet && !self.output.json
    }

    /// An act begins.
    pub(super) fn headline(&self, number: usize, title: &str) {
        self.print("");
        self.print(&self.output.err.paint(&format!("{number}  {title}"), Style::new().bold()));
    }

    /// A fact about an act: "promise  ready before retire".
    pub(super) fn fact(&self, name: &str, text: &str) {
        let name = self.output.err.paint(&format!("{name:9}"), FAINT);
        self.print(&format!("   {name}{}", self.cut(text, 12)));
    }

    /// Something that was looked at.
    pub(super) fn finding(&self, finding: &Finding) {
        let (mark, style) = if finding.held { ("✓", GOOD) } else { ("✗", BAD) };
        self.print(&format!("   {} {}", self.output.err.paint(mark, style), self.cut(&finding.text, 5)));
    }

    /// What a worker wrote.
    pub(super) fn quote(&self, line: &str) {
        let line = format!("     │ {}", text::clean(line));
        self.print(&self.output.err.paint(&self.cut(&line, 0), FAINT));
    }

    /// Any line that stays.
    pub(super) fn print(&self, line: &str) {
        if !self.is_drawn() {
            return self.output.say(line);
        }
        self.output.draw(&format!("{}{line}\n{}", erasure(&self.picture), joined(&self.picture)));
    }

    /// Draws this picture over the last one. No line of it is wider than the terminal.
    pub(super) fn redraw(&mut self, mut picture: Vec<String>) {
        if !self.is_drawn() {
            return;
        }
        // What has left the screen at the top could not be drawn over.
        picture.truncate(self.output.err.height.saturating_sub(1).max(1));
        if picture != self.picture {
            self.output.draw(&format!("{}{}", erasure(&self.picture), joined(&picture)));
            self.picture = picture;
        }
    }

    /// Takes the picture away.
    pub(super) fn clear(&mut self) {
        self.redraw(Vec::new());
    }

    fn cut(&self, text: &str, used: usize) -> String {
        text::cut(text, self.output.err.width.saturating_sub(used))
    }
}

/// Up to the picture's first line, and everything below it blank (ECMA-48 CUU, ED).
fn erasure(picture: &[String]) -> String {
    if picture.is_empty() { String::new() } else { format!("\u{1b}[{}A\r\u{1b}[J", picture.len()) }
}

fn joined(picture: &[String]) -> String {
    picture.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::capture;

    #[test]
    fn lines_go_above_the_picture() {
        let (mut output, written) = capture::output();
        output.err.redraw = true;
        let mut screen = Screen::new(&output);
        screen.redraw(vec!["one".into(), "two".into()]);
        screen.print("stays");
        screen.clear();
        let erased = "\u{1b}[2A\r\u{1b}[J";
        assert_eq!(written.talk(), format!("one\ntwo\n{erased}stays\none\ntwo\n{erased}"));
    }

    #[test]
    fn a_file_gets_lines_and_no_picture() {
        let (output, written) = capture::output();
        let mut screen = Screen::new(&output);
        screen.redraw(vec!["one".into()]);
        screen.finding(&Finding::new(true, "0 failed"));
        screen.clear();
        assert_eq!(written.talk(), "   ✓ 0 failed\n");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let (output, written) = capture::output();
        let screen = Screen::new(&output);
        let long = "x".repeat(200);
        screen.fact("promise", &long);
        screen.quote(&format!("\u{1b}[2J{long}"));
        screen.finding(&Finding::new(false, long));
        assert!(written.talk().lines().all(|line| line.chars().count() == 80), "{}", written.talk());
    }
}
