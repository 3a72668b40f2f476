//! Bytes become lines, however they were cut on the way.

use crate::advanced::{self, Unreadable};

/// How a stream is made of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// A line each: JSON, and a line feed.
    #[default]
    Lines,
    /// A frame each: Node's `advanced` serialization, see [`advanced`].
    Frames,
}

/// Cuts a stream into messages, each of which it hands out as a line of JSON; holds memory only for one that is not
/// complete.
#[derive(Debug)]
pub struct Framer {
    framing: Framing,
    longest: usize,
    /// The bytes of a message that has begun; or, while one is passed over, what says so to an heir.
    partial: Vec<u8>,
    /// The rest of a message that is too long is being passed over.
    skipping: Option<Skipping>,
}

#[derive(Debug)]
enum Skipping {
    ToLineFeed,
    Bytes(u32),
}

/// What a stream held.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// A line without its end.
    Line(&'a [u8]),
    /// A message was longer than is taken; it is passed over.
    TooLong,
    /// A frame that cannot be a line.
    Unreadable(Unreadable),
}

impl Framer {
    /// Messages of up to `longest` bytes are taken.
    #[must_use]
    pub fn new(framing: Framing, longest: usize) -> Framer {
        Framer { framing, longest, partial: Vec::new(), skipping: None }
    }

    /// Goes on where another one has ended, whose [`Framer::partial`] is known.
    #[must_use]
    pub fn resume(framing: Framing, longest: usize, partial: Vec<u8>) -> Framer {
        let skipping = match (framing, &partial[..]) {
            (Framing::Lines, SKIPPED_LINE) => Some(Skipping::ToLineFeed),
            (Framing::Frames, [0xff, 0xff, 0xff, 0xff, rest @ ..]) => {
                rest.try_into().ok().map(|left| Skipping::Bytes(u32::from_be_bytes(left)))
            }
            _ => None,
        };
        Framer { partial, skipping, ..Framer::new(framing, longest) }
    }

    /// Takes the next bytes and hands out what is complete, in order.
    pub fn feed(&mut self, bytes: &[u8], hear: impl FnMut(Heard<'_>)) {
        match self.framing {
            Framing::Lines => self.feed_lines(bytes, hear),
            Framing::Frames => self.feed_frames(bytes, hear),
        }
    }

    /// The beginning of a message that is not complete.
    #[must_use]
    pub fn partial(&self) -> &[u8] {
        &self.partial
    }

    fn feed_lines(&mut self, mut bytes: &[u8], mut hear: impl FnMut(Heard<'_>)) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let line = &bytes[..end];
            bytes = &bytes[end + 1..];
            if self.skipping.take().is_some() {
                self.partial = Vec::new();
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
        if self.skipping.is_some() || bytes.is_empty() {
            return;
        }
        if self.partial.len() + bytes.len() > self.longest {
            self.partial = SKIPPED_LINE.to_vec();
            self.skipping = Some(Skipping::ToLineFeed);
            hear(Heard::TooLong);
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }

    fn feed_frames(&mut self, mut bytes: &[u8], mut hear: impl FnMut(Heard<'_>)) {
        while !bytes.is_empty() {
            if let Some(Skipping::Bytes(left)) = self.skipping.take() {
                let passed = bytes.len().min(left as usize);
                bytes = &bytes[passed..];
                // It is at most what is left.
                self.skip(left - u32::try_from(passed).unwrap_or(left));
                continue;
            }
            if self.partial.is_empty()
                && let Some((length, rest)) = bytes.split_first_chunk()
                && let Some((payload, rest)) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)
                && payload.len() <= self.longest
            {
                bytes = rest;
                hear_frame(payload, &mut hear);
                continue;
            }
            let wanted = HEADER + self.length().unwrap_or(0) as usize;
            let taken = bytes.len().min(wanted - self.partial.len());
            self.partial.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            match self.length() {
                Some(length) if length as usize > self.longest => {
                    hear(Heard::TooLong);
                    self.skip(length);
                }
                Some(length) if self.partial.len() - HEADER == length as usize => {
                    let whole = std::mem::take(&mut self.partial);
                    hear_frame(&whole[HEADER..], &mut hear);
                }
                Some(_) | None => {}
            }
        }
    }

    /// Of the frame that has begun, once it is known.
    fn length(&self) -> Option<u32> {
        self.partial.first_chunk().map(|length| u32::from_be_bytes(*length))
    }

    fn skip(&mut self, left: u32) {
        self.partial.clear();
        self.partial.shrink_to(2 * HEADER);
        if left > 0 {
            self.skipping = Some(Skipping::Bytes(left));
            // No frame that is taken is as long as this.
            self.partial.extend([0xff; HEADER]);
            self.partial.extend(left.to_be_bytes());
        }
    }
}

fn hear_frame(payload: &[u8], hear: &mut impl FnMut(Heard<'_>)) {
    match advanced::decode(payload) {
        Ok(line) => hear(Heard::Line(line.as_bytes())),
        Err(Unreadable::TooLong) => hear(Heard::TooLong),
        Err(why) => hear(Heard::Unreadable(why)),
    }
}

/// What no unfinished line is.
const SKIPPED_LINE: &[u8] = b"\n";
/// Bytes of a frame's length.
const HEADER: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// What is heard of these pieces, and what is left. A successor goes on with each piece.
    fn heard(framing: Framing, pieces: &[&[u8]], longest: usize) -> (Vec<Option<String>>, Vec<u8>) {
        let (mut framer, mut seen) = (Framer::new(framing, longest), Vec::new());
        for piece in pieces {
            framer = Framer::resume(framing, longest, framer.partial().to_vec());
            framer.feed(piece, |heard| {
                seen.push(match heard {
                    Heard::Line(line) => Some(String::from_utf8_lossy(line).into_owned()),
                    Heard::TooLong => None,
                    Heard::Unreadable(why) => Some(why.to_string()),
                });
            });
            assert!(framer.partial.capacity() <= 2 * longest.max(8));
        }
        (seen, framer.partial().to_vec())
    }

    fn frame(json: &str) -> Vec<u8> {
        advanced::encode(json).unwrap()
    }

    #[test]
    fn lines_come_whole_and_in_order_however_they_are_cut() {
        let text = b"{\"a\":1}\n\"two\"\n\n\xc3\xa4\n3";
        let whole = heard(Framing::Lines, &[text], 100);
        assert_eq!((whole.0.len(), &whole.1[..]), (4, &b"3"[..]));
        for size in 1..text.len() {
            let pieces: Vec<&[u8]> = text.chunks(size).collect();
            assert_eq!(heard(Framing::Lines, &pieces, 100), whole, "{size}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_told_once_and_costs_no_memory_and_the_next_is_whole() {
        let long = [b"x".repeat(30), b"\nnext\n".to_vec()].concat();
        for size in 1..long.len() {
            let pieces: Vec<&[u8]> = long.chunks(size).collect();
            let want = (vec![None, Some("next".to_owned())], Vec::new());
            assert_eq!(heard(Framing::Lines, &pieces, 10), want, "{size}");
        }
        assert_eq!(heard(Framing::Lines, &[b"0123456789\n"], 10).0, [Some("0123456789".to_owned())]);
    }

    #[test]
    fn frames_come_whole_and_in_order_however_they_are_cut() {
        let frames =
            [frame("{\"a\":1}"), frame("\"日本\""), vec![0; 4], b"\0\0\0\x03\xff\x0f!".to_vec(), frame("[]")];
        let text = [&frames.concat()[..], &frame("3")[..6]].concat();
        let whole = heard(Framing::Frames, &[&text], 100);
        let want =
            ["{\"a\":1}", "\"日本\"", "it does not begin with FF 0F", "the tag `!` is not known there", "[]"];
        assert_eq!(whole.0, want.map(|want| Some(want.to_owned())));
        assert_eq!(whole.1, frame("3")[..6]);
        for size in 1..text.len() {
            let pieces: Vec<&[u8]> = text.chunks(size).collect();
            assert_eq!(heard(Framing::Frames, &pieces, 100), whole, "{size}");
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_told_once_and_costs_no_memory_and_the_next_is_whole() {
        let long = [frame(&format!("\"{}\"", "x".repeat(300))), frame("1")].concat();
        for size in 1..long.len() {
            let pieces: Vec<&[u8]> = long.chunks(size).collect();
            assert_eq!(
                heard(Framing::Frames, &pieces, 10),
                (vec![None, Some("1".to_owned())], Vec::new()),
                "{size}"
            );
        }
        // One whose JSON is.
        let mut sparse = b"\0\0\0\x11\xff\x0fa\xff\xff\xff\xff\x0f@\0\xff\xff\xff\xff\x0f".to_vec();
        sparse[3] = u8::try_from(sparse.len() - 4).unwrap();
        assert_eq!(heard(Framing::Frames, &[&sparse], 100), (vec![None], Vec::new()));
        // The longest that can be said.
        let (seen, left) = heard(Framing::Frames, &[b"\xff\xff\xff\xff", b"abc"], 100);
        assert_eq!((seen, left), (vec![None], b"\xff\xff\xff\xff\xff\xff\xff\xfc".to_vec()));
    }
}
