//! The body of one record: fields one after the other, little-endian, behind a head that says what it is.
//!
//! The head: version (2 bytes), kind (1), whether it lives (1), length (2), the oldest version that may read it (2),
//! key (16). What the fields mean is in `fields`.
//!
//! A version is written by one build and read by others, since people upgrade and go back. A later version appends
//! fields, which an older reader ignores; one that changes what is there says that no older one may read it. The head
//! is the same in every version.

use crate::id::{Slot, WorkerId};
use crate::time::Time;

/// A version of the records. A reader takes those of its own and earlier ones, and later ones that allow it.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u16);

impl Version {
    /// The one that this code writes.
    pub const OWN: Version = if cfg!(feature = "next-records") { Version::NEXT } else { Version::STANDBY };
    /// The first one that knows of schedules and of files that change.
    pub(super) const CLOCK: Version = Version(2);
    /// The first one that knows of standbys, and of listeners that workers ask for.
    pub(super) const STANDBY: Version = Version(3);
    /// One with another field at the end of each record; for tests, which go to and fro between two builds.
    pub const NEXT: Version = Version(4);
    /// One that no earlier one may read; for tests.
    pub const STRANGE: Version = Version(5);

    fn oldest_reader(self) -> u16 {
        if self < Version::STRANGE { 1 } else { self.0 }
    }
}

/// What a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    App = 1,
    Broker = 2,
    Slot = 3,
    Worker = 4,
    Command = 5,
}

impl Kind {
    pub(super) fn word(self) -> &'static str {
        match self {
            Kind::App => "app",
            Kind::Broker => "broker",
            Kind::Slot => "slot",
            Kind::Worker => "worker",
            Kind::Command => "command",
        }
    }
}

/// A body being written, or one that was.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Body {
    bytes: [u8; MOST],
    len: usize,
    version: Version,
}

impl Body {
    pub(super) fn new(kind: Kind, key: u128, version: Version) -> Body {
        let mut body = Body { bytes: [0; MOST], len: 0, version };
        body.bytes(&version.0.to_le_bytes());
        body.bytes(&[kind as u8, 1, 0, 0]);
        body.bytes(&version.oldest_reader().to_le_bytes());
        body.bytes(&key.to_le_bytes());
        body
    }

    /// Says that there is no record of this key any longer.
    pub(super) fn tombstone(kind: Kind, key: u128, version: Version) -> Body {
        let mut body = Body::new(kind, key, version);
        body.bytes[LIVES] = 0;
        body.close()
    }

    /// Whether it has what came with this version.
    pub(super) fn has(&self, since: Version) -> bool {
        self.version >= since
    }

    /// All fields are written, but that of the next version.
    pub(super) fn finish(mut self) -> Body {
        if self.version >= Version::NEXT {
            self.u64(APPENDED);
        }
        self.close()
    }

    /// Notes the length.
    fn close(mut self) -> Body {
        let len = u16::try_from(self.len).unwrap_or(u16::MAX);
        self.bytes[LENGTH..LENGTH + 2].copy_from_slice(&len.to_le_bytes());
        self
    }

    /// In whole words.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len.next_multiple_of(8)]
    }

    /// Whether what was read is this; of a later version it may say more.
    pub(super) fn is_said_by(&self, read: &[u8]) -> bool {
        match split(read) {
            Some((head, _)) if head.version > self.version => {
                head.len >= self.len && read.get(HEAD..self.len) == Some(&self.bytes[HEAD..self.len])
            }
            Some(_) => read == self.as_bytes(),
            None => false,
        }
    }

    fn bytes(&mut self, more: &[u8]) {
        let end = self.len + more.len();
        // Every field has a bound and all bounds together fit (a test writes the longest record of each kind).
        if let Some(room) = self.bytes.get_mut(self.len..end) {
            room.copy_from_slice(more);
            self.len = end;
        }
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    pub(super) fn flag(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// In one byte, the first in its lowest bit.
    pub(super) fn flags(&mut self, flags: [bool; 4]) {
        self.u8(flags.into_iter().rev().fold(0, |all, flag| all << 1 | u8::from(flag)));
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn time(&mut self, value: Time) {
        self.u64(value.0);
    }

    /// A flag and a number, 0 if there is none.
    pub(super) fn maybe(&mut self, value: Option<u64>) {
        self.flag(value.is_some());
        self.u64(value.unwrap_or(0));
    }

    pub(super) fn worker(&mut self, value: Option<WorkerId>) {
        self.maybe(value.map(|id| id.0));
    }

    pub(super) fn slot(&mut self, value: Option<Slot>) {
        self.maybe(value.map(|slot| u64::from(slot.0)));
    }

    pub(super) fn text(&mut self, text: &str) {
        let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
        self.bytes(&len.to_le_bytes());
        self.bytes(text.as_bytes());
    }
}

/// Reads a body's fields in the order in which they were written.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    /// The newest fields that are there and that the reader knows.
    version: Version,
}

/// Why a field cannot be what it should be.
pub(super) type Field<T> = Result<T, &'static str>;

impl<'a> Fields<'a> {
    /// Those behind the head, for a reader of this version.
    pub(super) fn of(body: &'a [u8], reader: Version) -> Self {
        let written = split(body).map_or(reader, |(head, _)| head.version);
        Fields { rest: body.get(HEAD..).unwrap_or_default(), version: written.min(reader) }
    }

    /// Whether what came with this version is there, for a reader who knows it.
    pub(super) fn have(&self, since: Version) -> bool {
        self.version >= since
    }

    /// What the next version has at the end, as far as it is there; an older writer had nothing to say there.
    pub(super) fn appended(&mut self) -> Field<()> {
        if self.version >= Version::NEXT && self.u64()? != APPENDED {
            return Err("what was appended to it is something else");
        }
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Field<[u8; N]> {
        let (first, rest) = self.rest.split_first_chunk().ok_or(SHORT)?;
        self.rest = rest;
        Ok(*first)
    }

    pub(super) fn u8(&mut self) -> Field<u8> {
        Ok(self.take::<1>()?[0])
    }

    pub(super) fn flag(&mut self) -> Field<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            2.. => Err("a flag is neither set nor unset"),
        }
    }

    pub(super) fn flags(&mut self) -> Field<[bool; 4]> {
        match self.u8()? {
            flags @ 0..16 => Ok([1, 2, 4, 8].map(|bit| flags & bit != 0)),
            16.. => Err("a flag is neither set nor unset"),
        }
    }

    pub(super) fn u16(&mut self) -> Field<u16> {
        Ok(u16::from_le_bytes(self.take()?))
    }

    pub(super) fn u32(&mut self) -> Field<u32> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    pub(super) fn u64(&mut self) -> Field<u64> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    pub(super) fn time(&mut self) -> Field<Time> {
        Ok(Time(self.u64()?))
    }

    pub(super) fn maybe(&mut self) -> Field<Option<u64>> {
        let is = self.flag()?;
        let value = self.u64()?;
        Ok(is.then_some(value))
    }

    pub(super) fn moment(&mut self) -> Field<Option<Time>> {
        Ok(self.maybe()?.map(Time))
    }

    pub(super) fn worker(&mut self) -> Field<Option<WorkerId>> {
        Ok(self.maybe()?.map(WorkerId))
    }

    pub(super) fn slot(&mut self) -> Field<Option<Slot>> {
        let number = self.maybe()?.map(u32::try_from).transpose();
        Ok(number.map_err(|_| "a slot's number is too large")?.map(Slot))
    }

    pub(super) fn text(&mut self) -> Field<String> {
        let len = usize::from(u16::from_le_bytes(self.take()?));
        let (text, rest) = self.rest.split_at_checked(len).ok_or(SHORT)?;
        self.rest = rest;
        let text = std::str::from_utf8(text).map_err(|_| "a text is not UTF-8")?;
        Ok(text.to_owned())
    }
}

/// What the head of a body says.
pub(super) struct Head {
    pub(super) version: Version,
    /// The oldest version that may read it.
    pub(super) oldest: u16,
    pub(super) kind: u8,
    pub(super) lives: bool,
    pub(super) len: usize,
    pub(super) key: u128,
}

/// The head and the whole body, if there is room for what its length says.
pub(super) fn split(bytes: &[u8]) -> Option<(Head, &[u8])> {
    let (version, rest) = bytes.split_first_chunk::<2>()?;
    let ([kind, lives], rest) = rest.split_first_chunk::<2>()?;
    let (len, rest) = rest.split_first_chunk::<2>()?;
    let (oldest, rest) = rest.split_first_chunk::<2>()?;
    let (key, _) = rest.split_first_chunk::<16>()?;
    let len = usize::from(u16::from_le_bytes(*len));
    if len < HEAD {
        return None;
    }
    let head = Head {
        version: Version(u16::from_le_bytes(*version)),
        oldest: u16::from_le_bytes(*oldest),
        kind: *kind,
        lives: *lives != 0,
        len,
        key: u128::from_le_bytes(*key),
    };
    Some((head, bytes.get(..len.next_multiple_of(8))?))
}

/// The longest body, in bytes.
pub(super) const MOST: usize = 496;
/// Bytes of the head.
pub(super) const HEAD: usize = 24;
const LIVES: usize = 3;
const LENGTH: usize = 4;
/// What stands in the field that the next version has and this one has not: it only shows that such a field does no harm.
const APPENDED: u64 = 0x6e65_7874;
const SHORT: &str = "it is too short";
