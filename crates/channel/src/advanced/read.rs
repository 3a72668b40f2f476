//! What a payload is made of: bytes, tags, numbers, strings.

use super::{Unreadable, tag};

/// The rest of a payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

/// A string as it stands there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Text<'a> {
    Latin1(&'a [u8]),
    /// UTF-16, the low byte first.
    Utf16(&'a [u8]),
    Utf8(&'a str),
}

impl<'a> Bytes<'a> {
    pub(super) fn byte(&mut self) -> Result<u8, Unreadable> {
        let (first, rest) = self.0.split_first().ok_or(Unreadable::Cut)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Unreadable::Cut)?;
        self.0 = rest;
        Ok(taken)
    }

    /// The next tag, which stays; what only fills up is passed over, and a count of objects.
    pub(super) fn peek_tag(&mut self) -> Result<u8, Unreadable> {
        loop {
            match self.0.first() {
                None => return Err(Unreadable::Cut),
                Some(&tag::PADDING) => self.0 = &self.0[1..],
                Some(b'?') => {
                    self.0 = &self.0[1..];
                    self.varint()?;
                }
                Some(tag) => return Ok(*tag),
            }
        }
    }

    pub(super) fn tag(&mut self) -> Result<u8, Unreadable> {
        self.peek_tag()?;
        self.byte()
    }

    /// Seven bits a byte, the lowest first.
    pub(super) fn varint(&mut self) -> Result<u32, Unreadable> {
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Unreadable::Wrong("a number that does not end"))
    }

    pub(super) fn length(&mut self) -> Result<usize, Unreadable> {
        Ok(self.varint()? as usize)
    }

    pub(super) fn int32(&mut self) -> Result<i32, Unreadable> {
        let zigzag = self.varint()?;
        Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
    }

    pub(super) fn double(&mut self) -> Result<f64, Unreadable> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.take(8)?);
        Ok(f64::from_le_bytes(bytes))
    }

    /// A string whose tag was read.
    pub(super) fn text(&mut self, tag: u8) -> Result<Text<'a>, Unreadable> {
        let kind = match tag {
            tag::ONE_BYTE_STRING => Text::Latin1,
            tag::TWO_BYTE_STRING => Text::Utf16,
            b'S' => {
                let length = self.length()?;
                let text = std::str::from_utf8(self.take(length)?);
                return text.map(Text::Utf8).map_err(|_| Unreadable::Wrong("a string that is not UTF-8"));
            }
            tag => return Err(Unreadable::Tag(tag)),
        };
        let length = self.length()?;
        if tag == tag::TWO_BYTE_STRING && length % 2 == 1 {
            return Err(Unreadable::Wrong("half a character"));
        }
        self.take(length).map(kind)
    }

    /// A string with its tag.
    pub(super) fn tagged_text(&mut self) -> Result<Text<'a>, Unreadable> {
        let tag = self.tag()?;
        self.text(tag)
    }

    /// A big integer whose tag was read; nothing is made of it.
    pub(super) fn pass_big_integer(&mut self) -> Result<(), Unreadable> {
        let length = self.varint()? >> 1;
        self.take(length as usize).map(|_| ())
    }
}
