//! Bytes become lines, however they were cut on the way.

/// Cuts a stream into lines; holds memory only for one that is not complete.
#[derive(Debug)]
pub struct Framer {
    partial: Vec<u8>,
    /// The rest of a line that is too long is being passed over.
    skipping: bool,
    longest: usize,
}

/// What a stream held.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// A line without its end.
    Line(&'a [u8]),
    /// A line was longer than is taken; it is passed over.
    TooLong,
}

impl Framer {
    /// Lines of up to `longest` bytes are taken.
    #[must_use]
    pub fn new(longest: usize) -> Framer {
        Framer { partial: Vec::new(), skipping: false, longest }
    }

    /// The same in the middle of a line whose beginning is known.
    #[must_use]
    pub fn resume(longest: usize, partial: Vec<u8>) -> Framer {
        Framer { partial, ..Framer::new(longest) }
    }

    /// Takes the next bytes and hands out what is complete, in order.
    pub fn feed(&mut self, mut bytes: &[u8], mut hear: impl FnMut(Heard<'_>)) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let line = &bytes[..end];
            bytes = &bytes[end + 1..];
            if self.skipping {
                self.skipping = false;
            } else if self.partial.len() + line.len() > self.longest {
                self.partial = Vec::new();
                hear(Heard::TooLong);
            } else if self.partial.is_empty() {
                hear(Heard::Line(line));
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(line);
                hear(Heard::Line(&whole));
            }
        }
        if self.skipping || bytes.is_empty() {
            return;
        }
        if self.partial.len() + bytes.len() > self.longest {
            self.partial = Vec::new();
            self.skipping = true;
            hear(Heard::TooLong);
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }

    /// The beginning of a line that is not complete.
    #[must_use]
    pub fn partial(&self) -> &[u8] {
        &self.partial
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(pieces: &[&[u8]], longest: usize) -> (Vec<Option<String>>, usize) {
        let (mut framer, mut seen) = (Framer::new(longest), Vec::new());
        for piece in pieces {
            framer.feed(piece, |heard| {
                seen.push(match heard {
                    Heard::Line(line) => Some(String::from_utf8_lossy(line).into_owned()),
                    Heard::TooLong => None,
                });
            });
        }
        (seen, framer.partial().len())
    }

    #[test]
    fn lines_come_whole_and_in_order_however_they_are_cut() {
        let text = b"{\"a\":1}\n\"two\"\n\n\xc3\xa4\n3";
        let whole = lines_of(&[text], 100);
        assert_eq!(whole.0.len(), 4);
        for size in 1..text.len() {
            let pieces: Vec<&[u8]> = text.chunks(size).collect();
            assert_eq!(lines_of(&pieces, 100), whole, "{size}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_told_once_and_costs_no_memory_and_the_next_is_whole() {
        let long = [b"x".repeat(30), b"\nnext\n".to_vec()].concat();
        for size in 1..long.len() {
            let pieces: Vec<&[u8]> = long.chunks(size).collect();
            assert_eq!(lines_of(&pieces, 10), (vec![None, Some("next".to_owned())], 0), "{size}");
        }
        assert_eq!(lines_of(&[b"0123456789\n"], 10).0, [Some("0123456789".to_owned())]);
    }
}
