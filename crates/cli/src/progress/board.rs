//! Where several commands are shown at once: one picture below the last line on a terminal, lines elsewhere.

use jiff::Timestamp;

use super::Track;
use crate::exit::{Exit, Trouble};
use crate::output::Output;
use crate::text;

/// Shows commands on their way. The caller redraws it, at most ten times a second.
pub(crate) struct Board<'a> {
    output: &'a Output,
    tracks: Vec<Option<Track>>,
    /// Lines of the picture that stands there now.
    drawn: usize,
}

impl<'a> Board<'a> {
    pub(crate) fn new(output: &'a Output, tracks: Vec<Track>) -> Self {
        Board { output, tracks: tracks.into_iter().map(Some).collect(), drawn: 0 }
    }

    /// Pictures are drawn; otherwise lines are.
    pub(crate) fn is_drawn(&self) -> bool {
        self.output.err.redraw && !self.output.quiet && !self.output.json
    }

    /// Names and verbs of those that are still on their way.
    pub(crate) fn open(&self) -> impl Iterator<Item = &Track> {
        self.tracks.iter().flatten()
    }

    /// That command, while it is on its way.
    pub(crate) fn track(&self, at: usize) -> Option<&Track> {
        self.tracks.get(at)?.as_ref()
    }

    /// Takes in an event of that command.
    pub(crate) fn take(&mut self, at: usize, event: &shiftboss_api::Event) {
        let line = self.tracks.get_mut(at).and_then(Option::as_mut).and_then(|track| track.take(event));
        if let Some(line) = line.filter(|_| !self.is_drawn() && !self.output.json) {
            self.output.say(&line);
        }
    }

    /// Draws the picture as it is now.
    pub(crate) fn redraw(&mut self, now: Timestamp) {
        if !self.is_drawn() {
            return;
        }
        let room = self.output.err.height.saturating_sub(1) / self.open().count().max(1);
        let frames: Vec<Vec<String>> = self.open().map(|track| track.frame(now, room)).collect();
        let mut lines = frames.join(&String::new());
        // What has left the screen at the top could not be drawn over.
        lines.truncate(self.output.err.height.saturating_sub(1).max(1));
        let mut text = self.erasure();
        for line in &lines {
            text.push_str(&text::cut(line, self.output.err.width.saturating_sub(1)));
            text.push('\n');
        }
        self.output.draw(&text);
        self.drawn = lines.len();
    }

    /// That command is over: its last picture stays, and below it how it ended. Gives its exit code.
    pub(crate) fn finish(&mut self, at: usize, ending: &Result<String, Trouble>) -> Result<Exit, Trouble> {
        let track = self.tracks.get_mut(at).and_then(Option::take);
        if self.is_drawn() {
            let mut text = self.erasure();
            let rows =
                track.filter(|track| track.total.is_some()).map(|track| track.frame(Timestamp::now(), 24));
            for line in rows.iter().flat_map(|lines| &lines[..lines.len() - 1]) {
                text.push_str(&text::cut(line, self.output.err.width.saturating_sub(1)));
                text.push('\n');
            }
            self.output.draw(&text);
            self.drawn = 0;
        }
        match ending {
            Ok(line) => {
                if !self.output.json {
                    self.output.line(line)?;
                }
                Ok(Exit::Done)
            }
            Err(trouble) => {
                self.output.trouble(trouble);
                Ok(trouble.exit)
            }
        }
    }

    /// Takes the picture away.
    pub(crate) fn erase(&mut self) {
        let text = self.erasure();
        self.output.draw(&text);
        self.drawn = 0;
    }

    /// Up to the picture's first line, and everything below it blank (ECMA-48 CUU, ED).
    fn erasure(&self) -> String {
        if self.drawn == 0 { String::new() } else { format!("\u{1b}[{}A\r\u{1b}[J", self.drawn) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Doing;
    use super::super::tests::event;
    use super::*;
    use crate::output::capture;
    use crate::table::tests::{broker, worker};

    fn drains() -> Vec<Track> {
        ["api", "jobs"].map(|name| Track::new(Doing::Drain, &broker(name, vec![worker(0, 5)]))).into()
    }

    #[test]
    fn a_terminal_gets_one_picture_that_is_drawn_over() {
        let (mut output, written) = capture::output();
        output.err.redraw = true;
        let mut board = Board::new(&output, drains());
        board.redraw(Timestamp::UNIX_EPOCH);
        board.take(0, &event("01", shiftboss_api::EventName::WorkerEnded, Some(0), Some(5)));
        board.redraw(Timestamp::UNIX_EPOCH);
        let first = "Draining api: 1 worker to leave\n\nDraining jobs: 1 worker to leave\n";
        let second = first.replacen("1 worker", "0 workers", 1);
        assert_eq!(written.talk(), format!("{first}\u{1b}[3A\r\u{1b}[J{second}"));
        board.finish(0, &Ok("Drained api.".into())).unwrap();
        assert_eq!(written.data(), "Drained api.\n");
        assert_eq!(board.open().count(), 1);
    }

    #[test]
    fn a_file_gets_lines_and_no_movements() {
        let (output, written) = capture::output();
        let mut board = Board::new(&output, drains());
        board.redraw(Timestamp::UNIX_EPOCH);
        board.take(0, &event("01", shiftboss_api::EventName::WorkerEnded, Some(0), Some(5)));
        board.erase();
        assert_eq!(written.talk(), "api/0: 5 has left\n");
    }

    #[test]
    fn a_failure_is_told_once_and_gives_the_exit_code() {
        let (output, written) = capture::output();
        let mut board = Board::new(&output, drains());
        let exit = board.finish(1, &Err(Trouble::new(Exit::Busy, "late"))).unwrap();
        assert_eq!((exit, written.talk().as_str()), (Exit::Busy, "error: late\n"));
    }
}
