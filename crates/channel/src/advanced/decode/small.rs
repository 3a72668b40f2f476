//! Objects that hold no others: dates, boxed values, expressions, memory and views of it.

use super::{BIG_INTEGER, Decoder, Inside, Place};
use crate::advanced::{Unreadable, date, number};

impl Decoder<'_> {
    /// An object without others in it.
    pub(super) fn small_object(&mut self, tag: u8) -> Result<(), Unreadable> {
        let (object, from) = self.number();
        match tag {
            b'D' => {
                let date = date::text(self.bytes.double()?);
                self.json.push(&date.map_or_else(|| "null".to_owned(), |date| format!("\"{date}\"")))?;
            }
            b'x' => self.json.push("false")?,
            b'y' => self.json.push("true")?,
            b'n' => {
                let number = self.bytes.double()?;
                self.json.number(number)?;
            }
            b'z' => {
                self.bytes.pass_big_integer()?;
                self.never(BIG_INTEGER)?;
                self.places[object] = Place::Never(BIG_INTEGER);
                return Ok(());
            }
            b's' => {
                let text = self.bytes.tagged_text()?;
                self.json.string(text)?;
            }
            b'R' => {
                self.bytes.tagged_text()?;
                self.bytes.varint()?;
                self.json.push("{}")?;
            }
            _ => {
                let length = self.bytes.length()?;
                if tag == b'~' {
                    self.bytes.varint()?;
                }
                self.bytes.take(length)?;
                self.json.push("{}")?;
            }
        }
        self.places[object] = Place::Text { from, to: self.json.len() };
        Ok(())
    }

    /// A view of memory, or what a program has made of an object of its own.
    pub(super) fn host_object(&mut self) -> Result<(), Unreadable> {
        match self.bytes.varint()? {
            0 => {
                let (object, from) = self.number();
                let kind = self.bytes.varint()?;
                let length = self.bytes.length()?;
                let memory = self.bytes.take(length)?;
                if self.view(kind, memory)? {
                    self.places[object] = Place::Text { from, to: self.json.len() };
                } else {
                    self.never(BIG_INTEGER)?;
                    self.places[object] = Place::Never(BIG_INTEGER);
                }
                Ok(())
            }
            1 => self.open(Inside::Host, ""),
            _ => Err(Unreadable::Wrong("an object of an unknown kind")),
        }
    }

    /// Whether JSON can hold it.
    fn view(&mut self, kind: u32, memory: &[u8]) -> Result<bool, Unreadable> {
        match kind {
            0 => self.elements(memory, |[byte]| f64::from(i8::from_le_bytes([byte]))),
            1 | 2 => self.elements(memory, |[byte]| f64::from(byte)),
            3 => self.elements(memory, |bytes| f64::from(i16::from_le_bytes(bytes))),
            4 => self.elements(memory, |bytes| f64::from(u16::from_le_bytes(bytes))),
            5 => self.elements(memory, |bytes| f64::from(i32::from_le_bytes(bytes))),
            6 => self.elements(memory, |bytes| f64::from(u32::from_le_bytes(bytes))),
            7 => self.elements(memory, |bytes| f64::from(f32::from_le_bytes(bytes))),
            8 => self.elements(memory, f64::from_le_bytes),
            9 => self.json.push("{}").map(|()| true),
            10 => self.buffer(memory).map(|()| true),
            11 | 12 if memory.is_empty() => self.json.push("{}").map(|()| true),
            11 | 12 => Ok(false),
            13 => self.elements(memory, |bytes| number::half(u16::from_le_bytes(bytes))),
            _ => Err(Unreadable::Wrong("a view of an unknown kind")),
        }
    }

    fn elements<const SIZE: usize>(
        &mut self,
        memory: &[u8],
        number: impl Fn([u8; SIZE]) -> f64,
    ) -> Result<bool, Unreadable> {
        let (elements, rest) = memory.as_chunks::<SIZE>();
        if !rest.is_empty() {
            return Err(Unreadable::Wrong("half an element"));
        }
        self.json.push("{")?;
        for (at, bytes) in elements.iter().enumerate() {
            self.json.separate('{')?;
            self.json.push(&format!("\"{at}\":"))?;
            self.json.number(number(*bytes))?;
        }
        self.json.push("}").map(|()| true)
    }

    /// `Buffer.prototype.toJSON`.
    fn buffer(&mut self, memory: &[u8]) -> Result<(), Unreadable> {
        self.json.push("{\"type\":\"Buffer\",\"data\":[")?;
        for byte in memory {
            self.json.separate('[')?;
            self.json.push(&byte.to_string())?;
        }
        self.json.push("]}")
    }
}
