//! JSON becomes a frame, byte for byte what Node makes of the parsed value if its members are in JavaScript's order.
//!
//! In two passes over the text: an array says first how many elements it has, so these are counted before.

use serde_json::value::RawValue;

use super::{DEEPEST, HEADER, Unsendable, tag};

/// A whole frame, its length included, of a JSON text.
///
/// # Errors
/// [`Unsendable`].
pub fn encode(json: &str) -> Result<Vec<u8>, Unsendable> {
    // What follows need not expect anything else.
    let json: &RawValue = serde_json::from_str(json).map_err(|_| Unsendable::NoJson)?;
    let json = json.get();
    let mut encoder = Encoder {
        frame: vec![0; 4],
        lengths: array_lengths(json)?.into_iter(),
        stack: Vec::new(),
        names: Vec::new(),
        units: Vec::new(),
    };
    encoder.frame.extend(HEADER);
    encoder.all(json)?;
    let mut frame = encoder.frame;
    let length = u32::try_from(frame.len() - 4).map_err(|_| Unsendable::TooLong)?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

struct Encoder {
    frame: Vec<u8>,
    /// Of the arrays to come.
    lengths: std::vec::IntoIter<u32>,
    stack: Vec<Open>,
    /// Where the names of all open objects' members stand.
    names: Vec<(usize, usize)>,
    /// A string that is not plain.
    units: Vec<u16>,
}

enum Open {
    Array {
        length: u32,
    },
    /// The first of its names; whether a name comes next.
    Object {
        names: usize,
        name: bool,
    },
}

impl Encoder {
    fn all(&mut self, json: &str) -> Result<(), Unsendable> {
        let mut rest = json;
        while let Some(first) = rest.bytes().next() {
            let length = match first {
                b'"' => string_length(rest),
                b'-' | b'0'..=b'9' => rest.find([',', ']', '}', ' ', '\t', '\r', '\n']),
                b't' | b'n' => Some(4),
                b'f' => Some(5),
                _ => Some(1),
            };
            let (token, after) =
                rest.split_at_checked(length.unwrap_or(rest.len())).ok_or(Unsendable::NoJson)?;
            rest = after;
            self.token(first, token)?;
        }
        Ok(())
    }

    fn token(&mut self, first: u8, token: &str) -> Result<(), Unsendable> {
        match first {
            b'{' => {
                self.frame.push(tag::OBJECT);
                self.open(Open::Object { names: self.names.len(), name: true })
            }
            b'[' => {
                let length = self.lengths.next().unwrap_or(0);
                self.frame.push(tag::DENSE_ARRAY);
                self.varint(length);
                self.open(Open::Array { length })
            }
            b'}' | b']' => self.close(),
            b',' => {
                if let Some(Open::Object { name, .. }) = self.stack.last_mut() {
                    *name = true;
                }
                Ok(())
            }
            b'"' => {
                let inner = token.get(1..token.len() - 1).unwrap_or_default();
                let begin = self.frame.len();
                match self.stack.last_mut() {
                    Some(Open::Object { name, .. }) if *name => {
                        *name = false;
                        match index(inner) {
                            Some(index) => self.number(index),
                            None => self.string(inner),
                        }
                        self.names.push((begin, self.frame.len()));
                    }
                    _ => self.string(inner),
                }
                Ok(())
            }
            b'n' => self.simple(tag::NULL),
            b't' => self.simple(tag::TRUE),
            b'f' => self.simple(tag::FALSE),
            b'-' | b'0'..=b'9' => {
                self.number(token.parse().map_err(|_| Unsendable::NoJson)?);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn simple(&mut self, tag: u8) -> Result<(), Unsendable> {
        self.frame.push(tag);
        Ok(())
    }

    fn open(&mut self, open: Open) -> Result<(), Unsendable> {
        if self.stack.len() >= DEEPEST {
            return Err(Unsendable::TooDeep);
        }
        self.stack.push(open);
        Ok(())
    }

    fn close(&mut self) -> Result<(), Unsendable> {
        match self.stack.pop() {
            Some(Open::Array { length }) => {
                self.frame.extend([tag::DENSE_ARRAY_END, 0]);
                self.varint(length);
            }
            Some(Open::Object { names, .. }) => {
                let frame = &self.frame;
                // What stands before a name for its place's sake is no part of it.
                let name = |place: &(usize, usize)| {
                    let name = &frame[place.0..place.1];
                    name.strip_prefix(&[tag::PADDING]).unwrap_or(name)
                };
                let own = &mut self.names[names..];
                own.sort_unstable_by(|one, other| name(one).cmp(name(other)));
                if own.windows(2).any(|two| name(&two[0]) == name(&two[1])) {
                    return Err(Unsendable::TwoMembers);
                }
                let count = own.len();
                self.names.truncate(names);
                self.frame.push(tag::OBJECT_END);
                self.varint(u32::try_from(count).map_err(|_| Unsendable::TooLong)?);
            }
            None => {}
        }
        Ok(())
    }

    fn number(&mut self, number: f64) {
        #[allow(clippy::cast_possible_truncation)]
        let whole = number as i32;
        // The bits tell the negative 0.
        if f64::from(whole).to_bits() == number.to_bits() {
            self.frame.push(tag::INT32);
            self.varint((whole << 1 ^ whole >> 31).cast_unsigned());
        } else {
            self.frame.push(tag::DOUBLE);
            self.frame.extend(number.to_le_bytes());
        }
    }

    /// What stands between the quotes of a string.
    fn string(&mut self, inner: &str) {
        if inner.is_ascii() && !inner.contains('\\') {
            self.one_byte(inner.len(), inner.bytes());
            return;
        }
        let mut units = std::mem::take(&mut self.units);
        units.clear();
        unescape(inner, &mut units);
        if units.iter().all(|unit| *unit < 0x100) {
            #[allow(clippy::cast_possible_truncation)]
            self.one_byte(units.len(), units.iter().map(|unit| *unit as u8));
        } else {
            let length = as_u32(units.len() * 2);
            // Characters of two bytes are at an even place.
            if (self.frame.len() + 1 + varint_length(length)) % 2 == 1 {
                self.frame.push(tag::PADDING);
            }
            self.frame.push(tag::TWO_BYTE_STRING);
            self.varint(length);
            self.frame.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        }
        self.units = units;
    }

    fn one_byte(&mut self, length: usize, bytes: impl Iterator<Item = u8>) {
        self.frame.push(tag::ONE_BYTE_STRING);
        self.varint(as_u32(length));
        self.frame.extend(bytes);
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.frame.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.frame.push(value.to_le_bytes()[0]);
    }
}

/// How many elements each array has, in the order in which they begin.
fn array_lengths(json: &str) -> Result<Vec<u32>, Unsendable> {
    let (mut lengths, mut open, mut rest) = (Vec::new(), Vec::new(), json);
    // Whether something stands in what was opened last.
    let mut empty = false;
    while let Some(first) = rest.bytes().next() {
        let length = if first == b'"' { string_length(rest) } else { None };
        match first {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b'[' => {
                open.push(Some(lengths.len()));
                lengths.push(0);
                empty = true;
            }
            b'{' => {
                open.push(None);
                empty = true;
            }
            b']' | b'}' => {
                if let (Some(Some(array)), false) = (open.pop(), empty) {
                    lengths[array] += 1;
                }
                empty = false;
            }
            b',' => {
                if let Some(Some(array)) = open.last() {
                    lengths[*array] += 1;
                }
            }
            _ => empty = false,
        }
        // Parts of other tokens are passed one by one, as they are ASCII.
        rest = rest.get(length.unwrap_or(1)..).ok_or(Unsendable::NoJson)?;
    }
    Ok(lengths)
}

/// The length of a string with its quotes.
fn string_length(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// The characters that a string means; one half of a pair may stand alone.
fn unescape(inner: &str, units: &mut Vec<u16>) {
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            units.extend(character.encode_utf16(&mut [0; 2]).iter());
            continue;
        }
        units.push(match characters.next() {
            Some('b') => 8,
            Some('t') => 9,
            Some('n') => 10,
            Some('f') => 12,
            Some('r') => 13,
            Some('u') => {
                let (hex, rest) = characters.as_str().split_at_checked(4).unwrap_or_default();
                characters = rest.chars();
                u16::from_str_radix(hex, 16).unwrap_or(0xfffd)
            }
            Some('"') => 0x22,
            Some('/') => 0x2f,
            _ => 0x5c,
        });
    }
}

/// The number that JavaScript makes of a name: an index, up to 2^32 - 2.
fn index(name: &str) -> Option<f64> {
    let canonical = name == "0" || (!name.starts_with('0') && name.bytes().all(|byte| byte.is_ascii_digit()));
    let index: u32 = name.parse().ok().filter(|_| canonical)?;
    (index < u32::MAX).then_some(f64::from(index))
}

/// Lengths of texts, which are below 4 GiB each: a longer frame is refused at its end.
fn as_u32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn varint_length(value: u32) -> usize {
    (1..5).find(|count| value >> (7 * count) == 0).unwrap_or(5)
}
