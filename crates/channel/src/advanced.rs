//! Node's `advanced` serialization: messages in the structured clone format of V8, a frame each.
//!
//! ```text
//! length of the payload, 4 bytes, the highest first │ FF 0F │ one value: a tag, and what belongs to it
//! ```
//!
//! [`decode`] makes of a payload what `JSON.stringify` would have made of the value, so that everybody else knows JSON
//! only; [`encode`] makes a frame of JSON. Node 18 to 24 write these bytes, format version 15 (`v8.serialize` shows them);
//! buffers are written as `child_process` does, with a 0 before them.

mod date;
mod decode;
mod encode;
mod number;
mod read;
#[cfg(test)]
mod tests;
mod text;

use std::fmt;

pub use decode::decode;
pub use encode::encode;

/// Why a payload is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It ends within a value.
    Cut,
    /// As JSON it would be longer than [`LONGEST`](crate::LONGEST).
    TooLong,
    /// Values within values, more than 1000.
    TooDeep,
    /// It begins otherwise, or with another version than 15.
    Version,
    /// This tag is not known, or not in this place.
    Tag(u8),
    /// JSON cannot hold this, and `JSON.stringify` would throw.
    NoJson(&'static str),
    /// What it says cannot be.
    Wrong(&'static str),
}

/// Why a text is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsendable {
    /// It is no JSON.
    NoJson,
    /// An object names a member twice: a reader would throw.
    TwoMembers,
    /// Values within values, more than 1000.
    TooDeep,
    /// Longer than a frame can be.
    TooLong,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreadable::Cut => f.write_str("it ends within a value"),
            Unreadable::TooLong => f.write_str("it is longer than is taken"),
            Unreadable::TooDeep => write!(f, "it has more than {DEEPEST} values within each other"),
            Unreadable::Version => f.write_str("it does not begin with FF 0F"),
            Unreadable::Tag(tag) => write!(f, "the tag `{}` is not known there", tag.escape_ascii()),
            Unreadable::NoJson(what) => write!(f, "{what} cannot be JSON"),
            Unreadable::Wrong(what) => write!(f, "it has {what}"),
        }
    }
}

impl Unsendable {
    /// The same in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Unsendable::NoJson => "it is no JSON",
            Unsendable::TwoMembers => "an object names a member twice",
            Unsendable::TooDeep => "it has more than 1000 values within each other",
            Unsendable::TooLong => "it is longer than a frame can be",
        }
    }
}

impl fmt::Display for Unsendable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

impl std::error::Error for Unreadable {}
impl std::error::Error for Unsendable {}

const HEADER: [u8; 2] = [0xff, 15];
const DEEPEST: usize = 1000;

/// The tags of the values that both ways know.
mod tag {
    pub(super) const UNDEFINED: u8 = b'_';
    pub(super) const NULL: u8 = b'0';
    pub(super) const TRUE: u8 = b'T';
    pub(super) const FALSE: u8 = b'F';
    pub(super) const INT32: u8 = b'I';
    pub(super) const DOUBLE: u8 = b'N';
    pub(super) const ONE_BYTE_STRING: u8 = b'"';
    pub(super) const TWO_BYTE_STRING: u8 = b'c';
    pub(super) const OBJECT: u8 = b'o';
    pub(super) const OBJECT_END: u8 = b'{';
    pub(super) const DENSE_ARRAY: u8 = b'A';
    pub(super) const DENSE_ARRAY_END: u8 = b'$';
    pub(super) const PADDING: u8 = 0;
}
