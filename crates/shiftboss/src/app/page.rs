//! What a report looks like on standard error: one block of at most 80 columns, written without waiting for long.

use std::fmt::{Display, Write as _};
use std::sync::{Mutex, TryLockError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::builder::variable;
use super::report::Told;

/// Whether nothing is to be written: `SILENCE_REPORTS` is set and not empty.
pub(super) fn silenced() -> bool {
    variable("SILENCE_REPORTS").is_some()
}

/// The text of something, as far as it tells it.
pub(super) fn shown(text: &dyn Display) -> String {
    let mut shown = String::new();
    // One that cannot show itself is shown in part; `to_string` would panic.
    let _ = write!(shown, "{text}");
    shown
}

/// The whole block, with its last line break.
pub(super) fn block(told: &Told<'_>) -> String {
    let head = format!("┌ {} ", told.kind);
    let mut page = Page { text: format!("\n{head}{}\n", "─".repeat(WIDTH - head.chars().count())) };
    let report = &told.report;
    page.paragraph("", report.title());
    let said = usize::from(report.message.is_empty());
    for cause in report.causes.iter().skip(said) {
        page.paragraph("because: ", &cause.text);
    }
    page.line("");
    let longest = report.context.keys().map(|key| name(key).chars().count()).max().unwrap_or(0);
    for (key, value) in &report.context {
        let text = value.to_string();
        page.paragraph(&format!("{:longest$}  ", name(key)), &text);
    }
    page.line("");
    let second = told.at.strftime("%Y-%m-%dT%H:%M:%SZ");
    page.paragraph("", &format!("{second}, {} at {}", told.app, told.place));
    if let Some(id) = &told.event_id {
        page.paragraph("", &format!("in Sentry as {id}"));
    }
    page.text.push_str("└\n");
    page.text
}

/// A name of context, which may be anything.
fn name(key: &str) -> String {
    let whole = escaped(key);
    if whole.chars().count() <= LONGEST_NAME {
        return whole;
    }
    whole.chars().take(LONGEST_NAME - 1).chain(['…']).collect()
}

struct Page {
    text: String,
}

impl Page {
    /// Some text behind a short word, on as many lines as it needs, all below the first.
    fn paragraph(&mut self, word: &str, text: &str) {
        let indent = word.chars().count();
        let mut before = word.to_owned();
        let cut: String = text.chars().take(MOST).collect();
        let room = WIDTH - 2 - indent;
        for line in cut.lines().flat_map(|line| wrapped(&escaped(line), room)) {
            self.line(&format!("{before}{line}"));
            before = " ".repeat(indent);
        }
        if cut.is_empty() {
            self.line(word);
        }
        let left_out = text.chars().count() - cut.chars().count();
        if left_out > 0 {
            self.line(&format!("{}… and {left_out} characters more", " ".repeat(indent)));
        }
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(format!("│ {line}").trim_end());
        self.text.push('\n');
    }
}

/// Breaks a line between words, and words that are longer than one.
fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let (mut line, mut columns) = (String::new(), 0);
    for word in text.split_inclusive(' ') {
        if columns + word.trim_end().chars().count() > room && columns > 0 {
            lines.push(std::mem::take(&mut line));
            columns = 0;
        }
        for character in word.chars() {
            if columns == room && character != ' ' {
                lines.push(std::mem::take(&mut line));
                columns = 0;
            }
            line.push(character);
            columns += 1;
        }
    }
    lines.push(line);
    lines
}

/// The text with everything escaped that could steer a terminal or reorder a line, line breaks too.
pub(super) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' => shown.push_str("    "),
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => {
                shown.extend(character.escape_unicode());
            }
            other if other.is_control() => shown.extend(other.escape_unicode()),
            other => shown.push(other),
        }
    }
    shown
}

/// The same for each line of a text.
pub(super) fn escaped_lines(text: &str) -> String {
    text.lines().map(escaped).collect::<Vec<_>>().join("\n")
}

/// Writes to standard error; false if it has not taken everything within a second.
pub(super) fn tell(text: &str) -> bool {
    let by = Instant::now() + PATIENCE;
    // One text after the other, but nobody waits for one who waits.
    let _turn = loop {
        match TURN.try_lock() {
            Ok(turn) => break turn,
            Err(TryLockError::Poisoned(turn)) => break turn.into_inner(),
            Err(TryLockError::WouldBlock) if Instant::now() >= by => return false,
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let Some(left) = by.checked_duration_since(Instant::now()) else { return false };
        let stderr = rustix::stdio::stderr();
        let mut polled = [PollFd::from_borrowed_fd(stderr, PollFlags::OUT)];
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut polled, Some(&left)) {
            Ok(0) => return false,
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return false,
        }
        if !polled[0].revents().contains(PollFlags::OUT) {
            if polled[0].revents().is_empty() {
                continue;
            }
            return false;
        }
        // A pipe that says so has room for so much (pipe(7): PIPE_BUF).
        match rustix::io::write(stderr, &rest[..rest.len().min(AT_ONCE)]) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => return false,
        }
    }
    true
}

static TURN: Mutex<()> = Mutex::new(());
const PATIENCE: Duration = Duration::from_secs(1);
const AT_ONCE: usize = 4096;
const WIDTH: usize = 80;
/// Columns of a name of context: most of the line is left for its value.
const LONGEST_NAME: usize = 24;
/// Characters of one text that are shown.
const MOST: usize = 4000;

#[cfg(test)]
mod tests {
    use super::super::Report;
    use super::*;

    fn shown(report: Report) -> String {
        let at = "2026-11-24T08:00:00.25Z".parse().unwrap();
        block(&Told { kind: "report", app: "shop", report, at, place: "src/a.rs:7".into(), event_id: None })
    }

    #[test]
    fn a_report_says_what_why_with_what_when_and_where() {
        let error = std::io::Error::other("nobody answers");
        let report = Report::new("could not load").error(&error);
        let report = report.context("worker_type", "api").context("broker", "api").context("retries", 3);
        let rule = "─".repeat(69);
        let expected = format!(
            "
┌ report {rule}──
│ could not load
│ because: nobody answers
│
│ broker       \"api\"
│ retries      3
│ worker_type  \"api\"
│
│ 2026-11-24T08:00:00Z, shop at src/a.rs:7
└
"
        );
        assert_eq!(shown(report), expected);
    }

    #[test]
    fn no_line_is_wider_than_80_columns_and_nothing_steers_the_terminal() {
        let hostile = "\u{1b}[2J\r\u{7}\u{202e}└\n┌ forged \u{9b}31m ".repeat(40);
        let error = std::io::Error::other(hostile.clone());
        let report = Report::new(&hostile).error(&error).context(&hostile, &hostile);
        let report = report.context("long", "x".repeat(100_000));
        let text = shown(report);
        for line in text.lines().skip(1) {
            assert!(line.starts_with(['┌', '│', '└']) && line.chars().count() <= 80, "{line}");
        }
        assert!(text.chars().all(|character| character == '\n' || !character.is_control()), "{text}");
        assert!(!text.contains('\u{202e}'));
        assert_eq!(text.matches("\n┌").count(), 1);
        assert!(text.len() < 100_000);
    }
}
