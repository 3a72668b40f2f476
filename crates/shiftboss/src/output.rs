//! What workers write: read line by line, never blocking them for long, the last lines kept for error messages.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use shiftboss_core::id::WorkerId;

use crate::os::lines::{Lines, Piece, Reading};

/// Both output pipes of one worker.
pub(crate) struct Output {
    /// Standard output, then standard error; none once it has ended.
    pipes: [Option<Lines>; 2],
    last: VecDeque<Box<str>>,
}

/// Last lines of workers that are gone, for those who ask a moment later.
#[derive(Default)]
pub(crate) struct Remains(VecDeque<(WorkerId, Vec<String>)>);

impl Output {
    pub(crate) fn new(stdout: Option<OwnedFd>, stderr: Option<OwnedFd>) -> Self {
        Output { pipes: [stdout.map(Lines::new), stderr.map(Lines::new)], last: VecDeque::new() }
    }

    /// The descriptor to wait on, if that pipe has not ended.
    pub(crate) fn pipe(&self, stream: usize) -> Option<BorrowedFd<'_>> {
        self.pipes.get(stream)?.as_ref().map(|lines| lines.as_fd())
    }

    /// Reads what has come, at most one portion.
    pub(crate) fn read(&mut self, stream: usize, buffer: &mut [u8], hear: impl FnMut(Piece<'_>)) -> Reading {
        let Some(lines) = self.pipes.get_mut(stream).and_then(Option::as_mut) else { return Reading::Empty };
        lines.read(buffer, remembering(&mut self.last, hear))
    }

    /// Gives the pipe up, to be taken from the poller and closed; an unfinished line is a line.
    pub(crate) fn end(&mut self, stream: usize, hear: impl FnMut(Piece<'_>)) -> Option<Lines> {
        let mut lines = self.pipes.get_mut(stream)?.take()?;
        lines.finish(remembering(&mut self.last, hear));
        Some(lines)
    }

    /// Leaves the pipe to a successor: the beginning of an unfinished line is a line.
    pub(crate) fn leave(&mut self, stream: usize, hear: impl FnMut(Piece<'_>)) {
        if let Some(lines) = self.pipes.get_mut(stream).and_then(Option::as_mut) {
            lines.cut(hear);
        }
    }

    pub(crate) fn last(&self) -> Vec<String> {
        self.last.iter().map(ToString::to_string).collect()
    }
}

fn remembering(last: &mut VecDeque<Box<str>>, mut hear: impl FnMut(Piece<'_>)) -> impl FnMut(Piece<'_>) {
    move |piece| {
        if let Piece::Line(text, _) = piece {
            remember(last, text);
        }
        hear(piece);
    }
}

fn remember(last: &mut VecDeque<Box<str>>, text: &str) {
    if last.len() == LAST_LINES {
        last.pop_front();
    }
    let end = text.char_indices().nth(LAST_WIDTH).map_or(text.len(), |(at, _)| at);
    last.push_back(text[..end].into());
}

impl Remains {
    pub(crate) fn keep(&mut self, worker: WorkerId, output: &Output) {
        if output.last.is_empty() {
            return;
        }
        if self.0.len() == REMAINS {
            self.0.pop_front();
        }
        self.0.push_back((worker, output.last()));
    }

    pub(crate) fn of(&self, worker: WorkerId) -> Vec<String> {
        self.0.iter().find(|(id, _)| *id == worker).map(|(_, lines)| lines.clone()).unwrap_or_default()
    }
}

/// Node says what was thrown in up to 20: the place, the message, ten calls, its members, its own version.
const LAST_LINES: usize = 20;
const LAST_WIDTH: usize = 200;
const REMAINS: usize = 16;
