//! What a process writes to a pipe, as lines of bounded length, read in portions of bounded size.
//!
//! Who wrote a line and where it goes is left to `output` and the log.

use std::borrow::Cow;
use std::fmt::Write;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

/// The reading end of a pipe with the line that is not yet complete; holds no memory while there is none.
#[derive(Debug)]
pub struct Lines {
    pipe: OwnedFd,
    partial: Vec<u8>,
    /// The rest of a line that was cut is being passed over.
    skipping: bool,
}

/// What becomes of the bytes of a pipe, in the order in which it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// So many were read.
    Read(usize),
    /// A line was made of so many of them, its end and what was cut off included.
    Line(&'a str, usize),
    /// So many were passed over: the rest of a line that was cut.
    PassedOver(usize),
}

/// How a portion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The portion is used up; there may be more.
    More,
    /// Nothing more is there now.
    Empty,
    /// All writers have closed it; nothing will ever come again.
    Ended,
}

/// A pipe for somebody's output: the reading end, which never blocks, and the writing end, which does as programs
/// expect. The flag belongs to each end alone (`pipe(7)`).
///
/// # Errors
/// EMFILE or ENFILE at the limit of open files.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    fcntl_setfl(&reader, fcntl_getfl(&reader)? | OFlags::NONBLOCK)?;
    Ok((reader, writer))
}

impl Lines {
    /// `pipe` must not block.
    #[must_use]
    pub fn new(pipe: OwnedFd) -> Self {
        Lines { pipe, partial: Vec::new(), skipping: false }
    }

    /// Reads at most 4 KiB through `buffer` (shared by all pipes, any size but zero; a small one costs more calls) and
    /// hands out each complete line, without its end (LF or CR LF). Bytes that are not UTF-8 become U+FFFD. A line longer
    /// than 8 KiB is cut there and ends in `…`. At the end an unfinished line is handed out too.
    pub fn read(&mut self, buffer: &mut [u8], mut hear: impl FnMut(Piece<'_>)) -> Reading {
        let mut left = PORTION;
        while left > 0 {
            let room = buffer.len().min(left);
            match rustix::io::read(&self.pipe, &mut buffer[..room]) {
                Ok(0) => {
                    self.finish(hear);
                    return Reading::Ended;
                }
                Ok(count) => {
                    hear(Piece::Read(count));
                    self.split(&buffer[..count], &mut hear);
                    left -= count;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Reading::Empty,
                Err(_) => {
                    self.finish(hear);
                    return Reading::Ended;
                }
            }
        }
        Reading::More
    }

    /// Hands out the unfinished line, if there is one: for a pipe that is given up before it has ended.
    pub fn finish(&mut self, mut hear: impl FnMut(Piece<'_>)) {
        let partial = std::mem::take(&mut self.partial);
        if !partial.is_empty() {
            say(&partial, partial.len(), &mut hear);
        }
    }

    /// The same for a pipe that another process goes on reading: the line ends in `…`, as one that is cut.
    pub fn cut(&mut self, mut hear: impl FnMut(Piece<'_>)) {
        let mut partial = std::mem::take(&mut self.partial);
        let bytes = partial.len();
        if bytes > 0 {
            partial.extend_from_slice(CUT);
            say(&partial, bytes, &mut hear);
        }
    }

    fn split(&mut self, bytes: &[u8], hear: &mut impl FnMut(Piece<'_>)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            match piece.split_last() {
                Some((b'\n', start)) => self.end_line(start, hear),
                Some(_) | None => self.keep(piece, hear),
            }
        }
    }

    fn end_line(&mut self, rest: &[u8], hear: &mut impl FnMut(Piece<'_>)) {
        if !self.skipping && self.partial.is_empty() && rest.len() <= LONGEST {
            return say(rest, rest.len() + 1, hear);
        }
        self.keep(rest, hear);
        let partial = std::mem::take(&mut self.partial);
        if std::mem::take(&mut self.skipping) {
            hear(Piece::PassedOver(1));
        } else {
            say(&partial, partial.len() + 1, hear);
        }
    }

    fn keep(&mut self, bytes: &[u8], hear: &mut impl FnMut(Piece<'_>)) {
        if self.skipping {
            return hear(Piece::PassedOver(bytes.len()));
        }
        // Four bytes more show where a character ends.
        let room = (LONGEST + 4).saturating_sub(self.partial.len());
        let (kept, rest) = bytes.split_at(bytes.len().min(room));
        self.partial.extend_from_slice(kept);
        if self.partial.len() > LONGEST && !is_just_the_end(&self.partial) {
            let mut partial = std::mem::take(&mut self.partial);
            let bytes = partial.len() + rest.len();
            partial.truncate(character_end(&partial));
            partial.extend_from_slice(CUT);
            self.skipping = true;
            say(&partial, bytes, hear);
        }
    }
}

/// To be put into a poller; it never blocks.
impl AsFd for Lines {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// The text as it may be shown on a terminal: what could move the cursor, change the terminal or hide or reorder text
/// is written out (`\x1b`, `\u{202e}`): control characters except tab, bidirectional and invisible ones.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_dangerous) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        // Writing to a string cannot fail.
        let _ = match u32::from(character) {
            _ if !is_dangerous(character) => out.write_char(character),
            number @ ..=0xff => write!(out, "\\x{number:02x}"),
            number => write!(out, "\\u{{{number:x}}}"),
        };
    }
    Cow::Owned(out)
}

fn is_dangerous(character: char) -> bool {
    match character {
        '\t' => false,
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => true,
        '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}' => true,
        // Without a width of their own, or blank (Default_Ignorable_Code_Point). The selectors FE00 to FE0F stay: they
        // are part of many a picture.
        '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' => true,
        '\u{180b}'..='\u{180f}' | '\u{3164}' | '\u{ffa0}' | '\u{1bca0}'..='\u{1bca3}' => true,
        character => character.is_control(),
    }
}

fn say(line: &[u8], bytes: usize, to: &mut impl FnMut(Piece<'_>)) {
    to(Piece::Line(&String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)), bytes));
}

/// A line of just the greatest length may still be followed by its CR.
fn is_just_the_end(partial: &[u8]) -> bool {
    partial.len() == LONGEST + 1 && partial.ends_with(b"\r")
}

/// The greatest length up to [`LONGEST`] that does not cut a UTF-8 character.
fn character_end(bytes: &[u8]) -> usize {
    let inside = |at: usize| bytes.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    (LONGEST - 3..=LONGEST).rev().find(|at| !inside(*at)).unwrap_or(LONGEST)
}

/// Bytes read by one call, so that nobody waits long for a process that floods its pipe: each may be a line.
const PORTION: usize = 4 * 1024;
/// Bytes of a line that are kept.
const LONGEST: usize = 8 * 1024;
/// Ends a line that is not all of what was written.
const CUT: &[u8] = "…".as_bytes();

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::write;

    /// The lines, and how many bytes were read that are neither in one nor passed over.
    #[derive(Default)]
    struct Seen(Vec<String>, usize);

    impl Seen {
        fn hear(&mut self, piece: Piece<'_>) {
            match piece {
                Piece::Read(bytes) => self.1 += bytes,
                Piece::PassedOver(bytes) => self.1 -= bytes,
                Piece::Line(text, bytes) => {
                    self.0.push(text.to_owned());
                    self.1 -= bytes;
                }
            }
        }
    }

    fn lines_of(writes: &[&[u8]], buffer: usize) -> (Vec<String>, Reading) {
        let (reader, writer) = pipe().unwrap();
        let (mut lines, mut seen) = (Lines::new(reader), Seen::default());
        let mut buffer = vec![0; buffer];
        for bytes in writes {
            assert_eq!(write(&writer, bytes).unwrap(), bytes.len());
            while lines.read(&mut buffer, |piece| seen.hear(piece)) == Reading::More {
                assert_eq!(seen.1, lines.partial.len());
            }
            assert_eq!(seen.1, lines.partial.len());
        }
        drop(writer);
        let reading = lines.read(&mut buffer, |piece| seen.hear(piece));
        assert_eq!((lines.partial.capacity(), seen.1), (0, 0));
        (seen.0, reading)
    }

    #[test]
    fn lines_come_whole_however_they_were_written_and_read() {
        for buffer in [1, 3, 4096] {
            let (seen, reading) =
                lines_of(&[b"one\r\ntw", b"o\n", b"\n\xc3", b"\xa4\xff\n", b"no end"], buffer);
            assert_eq!(seen, ["one", "two", "", "ä\u{fffd}", "no end"]);
            assert_eq!(reading, Reading::Ended);
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_once_and_the_next_is_whole() {
        let long = "x".repeat(20_000);
        for buffer in [1000, 65536] {
            let (seen, _) = lines_of(&[long.as_bytes(), b"tail\nnext\n", long.as_bytes()], buffer);
            let cut = format!("{}…", "x".repeat(LONGEST));
            assert_eq!(seen, [cut.as_str(), "next", cut.as_str()]);
        }
    }

    #[test]
    fn a_line_of_just_the_greatest_length_is_not_cut() {
        let longest = "x".repeat(LONGEST);
        for end in ["\n", "\r\n"] {
            for buffer in [1, 4096, 65536] {
                let (seen, _) = lines_of(&[longest.as_bytes(), end.as_bytes()], buffer);
                assert_eq!(seen, [longest.as_str()]);
                let (seen, _) = lines_of(&[format!("{longest}{end}").as_bytes()], buffer);
                assert_eq!(seen, [longest.as_str()]);
            }
        }
    }

    #[test]
    fn a_cut_does_not_split_a_character() {
        for shift in 0..4 {
            let text = format!("{}{}\n", "x".repeat(shift), "😀".repeat(3000));
            let (seen, _) = lines_of(&[text.as_bytes()], 65536);
            assert!(!seen[0].contains('\u{fffd}') && seen[0].ends_with("😀…"), "{shift}");
            assert!(seen[0].len() > LONGEST - 4);
        }
    }

    #[test]
    fn a_flood_is_read_in_portions_and_an_idle_pipe_is_empty() {
        let (reader, writer) = pipe().unwrap();
        rustix::pipe::fcntl_setpipe_size(&writer, 4 * PORTION).unwrap();
        let mut lines = Lines::new(reader);
        let mut buffer = vec![0; 4 * PORTION];
        write(&writer, &vec![b'\n'; 2 * PORTION]).unwrap();
        let mut count = 0;
        assert_eq!(
            lines.read(&mut buffer, |piece| count += usize::from(matches!(piece, Piece::Line(..)))),
            Reading::More
        );
        assert_eq!(count, PORTION);
        assert_eq!(
            lines.read(&mut buffer, |piece| count += usize::from(matches!(piece, Piece::Line(..)))),
            Reading::More
        );
        assert_eq!(
            lines.read(&mut buffer, |piece| count += usize::from(matches!(piece, Piece::Line(..)))),
            Reading::Empty
        );
        assert_eq!(count, 2 * PORTION);
    }

    #[test]
    fn a_given_up_pipe_still_has_its_unfinished_line() {
        let (reader, writer) = pipe().unwrap();
        let (mut lines, mut seen) = (Lines::new(reader), Seen::default());
        write(&writer, b"last words").unwrap();
        assert_eq!(lines.read(&mut [0; 64], |piece| seen.hear(piece)), Reading::Empty);
        assert_eq!((&seen.0[..], seen.1), (&[][..], 10));
        lines.finish(|piece| seen.hear(piece));
        lines.finish(|piece| seen.hear(piece));
        assert_eq!((seen.0, seen.1), (vec!["last words".to_owned()], 0));
    }

    #[test]
    fn a_pipe_that_is_left_to_another_shows_that_its_line_was_not_finished() {
        let (reader, writer) = pipe().unwrap();
        let (mut lines, mut seen) = (Lines::new(reader), Seen::default());
        lines.cut(|piece| seen.hear(piece));
        write(&writer, b"whole\nhalf").unwrap();
        assert_eq!(lines.read(&mut [0; 64], |piece| seen.hear(piece)), Reading::Empty);
        lines.cut(|piece| seen.hear(piece));
        assert_eq!((seen.0, seen.1), (vec!["whole".to_owned(), "half…".to_owned()], 0));
    }

    #[test]
    fn nothing_that_is_printed_can_touch_the_terminal() {
        assert_eq!(printable("plain\tä 😀"), "plain\tä 😀");
        assert!(matches!(printable("plain"), Cow::Borrowed(_)));
        assert_eq!(printable("\x1b[2J\x07\x7f\u{9b}\r"), "\\x1b[2J\\x07\\x7f\\x9b\\x0d");
        assert_eq!(printable("a\u{202e}b\u{200b}\u{feff}"), "a\\u{202e}b\\u{200b}\\u{feff}");
        assert_eq!(printable("a\u{ad}\u{3164}\u{e0141}"), "a\\xad\\u{3164}\\u{e0141}");
        assert_eq!(printable("\u{2764}\u{fe0f} e\u{301}"), "\u{2764}\u{fe0f} e\u{301}");
        for number in (0..0x20).chain(0x7f..0xa0).filter(|number| *number != 9) {
            let character = char::from_u32(number).unwrap();
            assert_eq!(printable(&character.to_string()), format!("\\x{number:02x}"));
        }
    }
}
