//! JSON that is being written, of a bounded length.

use super::Unreadable;
use super::number;
use super::read::Text;

/// A text, and how much may still be written, also of what is cut off again.
#[derive(Debug)]
pub(super) struct Json {
    pub(super) text: String,
    room: usize,
}

impl Json {
    pub(super) fn new(room: usize) -> Json {
        Json { text: String::new(), room }
    }

    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    pub(super) fn push(&mut self, text: &str) -> Result<(), Unreadable> {
        self.room = self.room.checked_sub(text.len()).ok_or(Unreadable::TooLong)?;
        self.text.push_str(text);
        Ok(())
    }

    /// The same text `times` times.
    pub(super) fn repeat(&mut self, text: &str, times: usize) -> Result<(), Unreadable> {
        if text.len().saturating_mul(times) > self.room {
            return Err(Unreadable::TooLong);
        }
        (0..times).try_for_each(|_| self.push(text))
    }

    /// A comma, unless nothing stands in the value yet that `open` began.
    pub(super) fn separate(&mut self, open: char) -> Result<(), Unreadable> {
        if self.text.ends_with(open) { Ok(()) } else { self.push(",") }
    }

    pub(super) fn number(&mut self, number: f64) -> Result<(), Unreadable> {
        if number.is_finite() { self.push(&number::text(number)) } else { self.push("null") }
    }

    pub(super) fn string(&mut self, text: Text<'_>) -> Result<(), Unreadable> {
        self.push("\"")?;
        match text {
            Text::Latin1(bytes) => {
                for run in bytes.chunk_by(|one, next| is_plain(*one) && is_plain(*next)) {
                    match std::str::from_utf8(run) {
                        Ok(plain) if is_plain(run[0]) => self.push(plain)?,
                        // One that is not plain is a run of its own.
                        _ => self.character(char::from(run[0]))?,
                    }
                }
            }
            Text::Utf16(bytes) => {
                let units = bytes.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
                for character in char::decode_utf16(units) {
                    match character {
                        Ok(character) => self.character(character)?,
                        Err(alone) => self.push(&format!("\\u{:04x}", alone.unpaired_surrogate()))?,
                    }
                }
            }
            Text::Utf8(text) => text.chars().try_for_each(|character| self.character(character))?,
        }
        self.push("\"")
    }

    fn character(&mut self, character: char) -> Result<(), Unreadable> {
        match character {
            '"' => self.push("\\\""),
            '\\' => self.push("\\\\"),
            '\u{8}' => self.push("\\b"),
            '\t' => self.push("\\t"),
            '\n' => self.push("\\n"),
            '\u{c}' => self.push("\\f"),
            '\r' => self.push("\\r"),
            '\0'..' ' => self.push(&format!("\\u{:04x}", u32::from(character))),
            _ => self.push(character.encode_utf8(&mut [0; 4])),
        }
    }
}

/// A character that JSON has as it is, and UTF-8 too.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..0x80) && byte != b'"' && byte != b'\\'
}
