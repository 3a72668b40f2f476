//! The image of all records: where each lies, and which of its two copies counts.
//!
//! ```text
//! 0     magic, format, how many cells of each kind, checksum; at 64 the commit word
//! 4096  a cell for each worker: word for its pid, two copies of 128 bytes
//!       the app's cell; a cell for each broker, slot, command: two copies of 512, 128, 512 bytes
//! ```
//!
//! A copy is the number of its step, a checksum over step and body, and the body. Step k overwrites the older copy of
//! each record that it changes, then stores k in the commit word. What counts is the newest copy whose step is not
//! above the commit word. The app's record is written by every step. It holds the sum of the checksums of all other
//! records, so that an old copy never passes for a damaged newer one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::snapshot::body::{Body, Fields, HEAD, Kind, MOST, Version, split};
use crate::snapshot::refused::Refused;

/// How many records of each kind an image has room for. The room is address space: what is never written need not
/// have memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Brokers.
    pub brokers: u32,
    /// Slots of all brokers.
    pub slots: u32,
    /// Workers of all brokers, those that are leaving included.
    pub workers: u32,
    /// Commands that wait or were answered lately. At most 512 and 1,024 of them, and in one
    /// step 512 more.
    pub commands: u32,
}

impl Default for Layout {
    /// Room for 256 brokers, 200,000 slots, 400,000 workers: 208 MiB of address space.
    fn default() -> Self {
        Layout { brokers: 256, slots: 200_000, workers: 400_000, commands: 2560 }
    }
}

impl Layout {
    /// The image's length in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.at(Kind::Command, self.commands)
    }

    /// How many cells there are of a kind.
    pub(super) fn count(&self, kind: Kind) -> u32 {
        match kind {
            Kind::App => 1,
            Kind::Broker => self.brokers,
            Kind::Slot => self.slots,
            Kind::Worker => self.workers,
            Kind::Command => self.commands,
        }
    }

    /// Where a cell begins.
    pub(super) fn at(&self, kind: Kind, cell: u32) -> usize {
        let sections = SECTIONS.iter().take_while(|before| **before != kind);
        let before: usize =
            sections.map(|before| (self.count(*before) as usize).saturating_mul(stride(*before))).sum();
        WORKERS_AT + before + (cell as usize).saturating_mul(stride(kind))
    }

    /// Where one of a cell's two copies begins.
    pub(super) fn copy_at(&self, kind: Kind, cell: u32, copy: u8) -> usize {
        self.at(kind, cell) + front(kind) + usize::from(copy) * copy_size(kind)
    }

    /// The first bytes of an image.
    pub(super) fn header(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        let numbers = [FORMAT, self.brokers, self.slots, self.workers, self.commands, 0];
        for (at, number) in (8..).step_by(4).zip(numbers) {
            header[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        let sum = checksum(0, &header[..SUMMED]);
        header[SUMMED..].copy_from_slice(&sum.to_le_bytes());
        header
    }

    fn read(image: &[u8]) -> Result<Layout, Refused> {
        if image.get(..8) != Some(MAGIC) {
            return Err(Refused::NotRecords);
        }
        let truncated = |needs| Refused::Truncated { has: image.len(), needs };
        let header: &[u8; HEADER] = image.first_chunk().ok_or(truncated(WORKERS_AT))?;
        let number =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if number(8) != FORMAT {
            return Err(Refused::Format { found: number(8), known: FORMAT });
        }
        let layout =
            Layout { brokers: number(12), slots: number(16), workers: number(20), commands: number(24) };
        if layout.header() != *header {
            return Err(Refused::Damaged { record: "the header".to_owned(), why: SUM });
        }
        if image.len() < layout.size() { Err(truncated(layout.size())) } else { Ok(layout) }
    }
}

/// Where the word for a worker's pid lies, by the number of the worker's cell: 4 bytes, 0 until the kernel has
/// written the pid (`CLONE_CHILD_SETTID` in `clone(2)`). This is the same in every format.
#[must_use]
pub fn pid_word(cell: u32) -> usize {
    WORKERS_AT + (cell as usize) * stride(Kind::Worker)
}

/// A record as it lies in an image.
#[derive(Clone, Copy)]
pub(super) struct Cell {
    pub(super) number: u32,
    /// Which of the copies counts.
    pub(super) copy: u8,
    pub(super) sum: u64,
}

/// What an image holds as of its last committed step.
pub(super) struct Contents<'a> {
    /// Whose reader this is.
    pub(super) reader: Version,
    /// The versions in which the records are written.
    pub(super) versions: BTreeSet<Version>,
    pub(super) layout: Layout,
    pub(super) step: u64,
    pub(super) app: Cell,
    /// The app's body.
    pub(super) body: &'a [u8],
    pub(super) tail: Tail,
    pub(super) records: BTreeMap<(Kind, u128), (Cell, &'a [u8])>,
    /// Cells of records that are no more.
    pub(super) free: Vec<(Kind, Cell)>,
    /// Copies of a step that was never committed, as places of their step numbers.
    pub(super) torn: Vec<usize>,
}

/// What the image notes in the app's record, before the app's own fields.
#[derive(Clone, Copy, Default)]
pub(super) struct Tail {
    /// The sum of the checksums of all other records.
    pub(super) digest: u64,
    /// How many cells of each kind were ever used, in the order of [`KINDS`].
    pub(super) used: [u32; 4],
}

impl Tail {
    /// Where it stands in the app's body.
    pub(super) const PLACE: Range<usize> = HEAD..HEAD + 24;

    pub(super) fn write(&self, body: &mut Body) {
        body.u64(self.digest);
        for used in self.used {
            body.u32(used);
        }
    }

    pub(super) fn read(fields: &mut Fields<'_>) -> Result<Tail, &'static str> {
        let digest = fields.u64()?;
        Ok(Tail { digest, used: [fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?] })
    }
}

/// Reads an image: all records that count, or none.
pub(super) fn read(image: &[u8], reader: Version) -> Result<Contents<'_>, Refused> {
    let layout = Layout::read(image)?;
    let step = word(image, COMMIT_AT);
    if step == 0 {
        return Err(Refused::Empty);
    }
    let damaged = |why| Refused::Damaged { record: "the app's record".to_owned(), why };
    let mut torn = Vec::new();
    let newest = newest(image, &layout, Kind::App, 0, step, &mut torn);
    let newest = newest.filter(|newest| newest.step == step).ok_or(damaged(SUM))?;
    may_read(reader, newest.version, newest.oldest)?;
    let tail = Tail::read(&mut Fields::of(newest.body, reader)).map_err(damaged)?;
    if KINDS.iter().zip(tail.used).any(|(kind, used)| used > layout.count(*kind)) {
        return Err(damaged("it names more cells than there are"));
    }
    let (app, body) = (newest.cell, newest.body);
    let versions = BTreeSet::from([newest.version]);
    let (records, free) = (BTreeMap::new(), Vec::new());
    let mut contents = Contents { reader, versions, layout, step, app, body, tail, records, free, torn };
    for (kind, used) in KINDS.into_iter().zip(tail.used) {
        for number in 0..used {
            contents.take(image, kind, number)?;
        }
    }
    let digest = contents.records.values().fold(0, |sum: u64, (cell, _)| sum.wrapping_add(cell.sum));
    if digest != tail.digest {
        let record = "one of the records".to_owned();
        return Err(Refused::Damaged { record, why: "they do not add up to what the app's record says" });
    }
    Ok(contents)
}

impl<'a> Contents<'a> {
    fn take(&mut self, image: &'a [u8], kind: Kind, number: u32) -> Result<(), Refused> {
        let damaged = |why| Refused::Damaged { record: format!("{} cell {number}", kind.word()), why };
        let newest = newest(image, &self.layout, kind, number, self.step, &mut self.torn);
        let newest = newest.ok_or(damaged(SUM))?;
        if !newest.lives {
            self.free.push((kind, newest.cell));
            return Ok(());
        }
        may_read(self.reader, newest.version, newest.oldest)?;
        self.versions.insert(newest.version);
        if self.records.insert((kind, newest.key), (newest.cell, newest.body)).is_some() {
            return Err(damaged("another record is of the same"));
        }
        Ok(())
    }
}

/// Whether a reader of one version may read a record of another.
fn may_read(reader: Version, written: Version, oldest: u16) -> Result<(), Refused> {
    if oldest <= reader.0 {
        return Ok(());
    }
    Err(Refused::Format { found: u32::from(written.0), known: u32::from(reader.0) })
}

/// The copy of a cell that counts.
struct Newest<'a> {
    cell: Cell,
    step: u64,
    version: Version,
    oldest: u16,
    lives: bool,
    key: u128,
    body: &'a [u8],
}

fn newest<'a>(
    image: &'a [u8],
    layout: &Layout,
    kind: Kind,
    number: u32,
    commit: u64,
    torn: &mut Vec<usize>,
) -> Option<Newest<'a>> {
    let mut newest: Option<Newest<'a>> = None;
    for copy in [0, 1] {
        let at = layout.copy_at(kind, number, copy);
        let (step, sum) = (word(image, at), word(image, at + 8));
        if step > commit {
            torn.push(at);
            continue;
        }
        let newer = step > newest.as_ref().map_or(0, |newest| newest.step);
        let bytes = image.get(at + FRONT..at + copy_size(kind)).unwrap_or_default();
        let Some((head, body)) = split(bytes).filter(|_| newer) else { continue };
        if head.kind != kind as u8 || checksum(step, body) != sum {
            continue;
        }
        let cell = Cell { number, copy, sum };
        let (version, oldest, lives, key) = (head.version, head.oldest, head.lives, head.key);
        newest = Some(Newest { cell, step, version, oldest, lives, key, body });
    }
    newest
}

/// A whole copy, ready to be written; the rest of its room keeps what was there.
pub(super) fn copy(step: u64, body: &Body, bytes: &mut [u8; FRONT + MOST]) -> (u64, usize) {
    let sum = checksum(step, body.as_bytes());
    let len = FRONT + body.as_bytes().len();
    bytes[..8].copy_from_slice(&step.to_le_bytes());
    bytes[8..FRONT].copy_from_slice(&sum.to_le_bytes());
    bytes[FRONT..len].copy_from_slice(body.as_bytes());
    (sum, len)
}

/// Checksums of what is there, wrong as it may be: of the header, of each copy, and of all records that count.
pub(super) fn sum_again(image: &mut [u8]) {
    if let Some(header) = image.first_chunk_mut::<HEADER>() {
        let sum = checksum(0, &header[..SUMMED]);
        header[SUMMED..].copy_from_slice(&sum.to_le_bytes());
    }
    let Ok(layout) = Layout::read(image) else { return };
    for kind in SECTIONS {
        for (number, copy) in (0..layout.count(kind)).flat_map(|number| [(number, 0), (number, 1)]) {
            sum_copy(image, layout.copy_at(kind, number, copy), copy_size(kind));
        }
    }
    let (step, mut torn) = (word(image, COMMIT_AT), Vec::new());
    let Some(app) = newest(image, &layout, Kind::App, 0, step, &mut torn) else { return };
    let Ok(tail) = Tail::read(&mut Fields::of(app.body, Version::OWN)) else { return };
    let at = layout.copy_at(Kind::App, 0, app.cell.copy);
    let cells = KINDS.into_iter().zip(tail.used);
    let cells =
        cells.flat_map(|(kind, used)| (0..used.min(layout.count(kind))).map(move |cell| (kind, cell)));
    let living = cells.filter_map(|(kind, cell)| newest(image, &layout, kind, cell, step, &mut torn));
    let digest =
        living.filter(|newest| newest.lives).fold(0u64, |sum, newest| sum.wrapping_add(newest.cell.sum));
    if let Some(room) = image.get_mut(at + FRONT + HEAD..).and_then(<[u8]>::first_chunk_mut) {
        *room = digest.to_le_bytes();
    }
    sum_copy(image, at, copy_size(Kind::App));
}

fn sum_copy(image: &mut [u8], at: usize, size: usize) {
    let step = word(image, at);
    let body = image.get(at + FRONT..at + size).and_then(split).map(|(_, body)| body);
    let sum = body.map(|body| checksum(step, body));
    if let Some((sum, room)) = sum.zip(image.get_mut(at + 8..).and_then(<[u8]>::first_chunk_mut)) {
        *room = sum.to_le_bytes();
    }
}

/// Changes with any single word, and with their order. `words` is a whole number of 8 bytes.
fn checksum(step: u64, words: &[u8]) -> u64 {
    let mix = |sum: u64, word: u64| {
        let sum = (sum ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        sum ^ (sum >> 29)
    };
    words.as_chunks().0.iter().fold(mix(SEED, step), |sum, chunk| mix(sum, u64::from_le_bytes(*chunk)))
}

fn word(image: &[u8], at: usize) -> u64 {
    let bytes = image.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Bytes of a cell.
fn stride(kind: Kind) -> usize {
    front(kind) + 2 * copy_size(kind)
}

/// Bytes of a cell before its copies.
fn front(kind: Kind) -> usize {
    match kind {
        Kind::Worker => 8,
        Kind::App | Kind::Broker | Kind::Slot | Kind::Command => 0,
    }
}

fn copy_size(kind: Kind) -> usize {
    match kind {
        Kind::Slot | Kind::Worker => 128,
        Kind::App | Kind::Broker | Kind::Command => FRONT + MOST,
    }
}

/// All kinds of which there may be many.
pub(super) const KINDS: [Kind; 4] = [Kind::Broker, Kind::Slot, Kind::Worker, Kind::Command];
/// All kinds, in the order in which they lie.
const SECTIONS: [Kind; 5] = [Kind::Worker, Kind::App, Kind::Broker, Kind::Slot, Kind::Command];
/// Where the workers' cells begin.
const WORKERS_AT: usize = 4096;
/// Where the number of the last committed step lies.
pub(super) const COMMIT_AT: usize = 64;
/// Bytes of a copy before its body: step and checksum.
pub(super) const FRONT: usize = 16;
const MAGIC: &[u8; 8] = b"SHIFTREC";
const FORMAT: u32 = 1;
const HEADER: usize = 40;
const SUMMED: usize = HEADER - 8;
const SEED: u64 = 0x5348_4946_5442_4F53;
const SUM: &str = "its checksum does not fit";
