//! The writer of records: after each step, what the step has changed.

use std::collections::BTreeMap;
use std::fmt;

use crate::app::App;
use crate::changes::Changes;
use crate::id::{BrokerId, WorkerId};
use crate::snapshot::body::{Body, Kind, MOST, Version};
use crate::snapshot::fields::{Name, encode_app, names};
use crate::snapshot::image::{COMMIT_AT, Cell, Contents, FRONT, KINDS, Layout, Tail, copy, pid_word, read};
use crate::snapshot::refused::Refused;

/// Where records are kept. The bytes outlive the writer.
pub trait Store {
    /// All bytes, of at least [`Layout::size`]; zero where nothing was written.
    fn bytes(&self) -> &[u8];

    /// Replaces the bytes from `at` on. The writer may end in the middle of it, but not in the middle of an aligned
    /// word of 8 bytes; what was written before is never lost with a later write.
    fn write(&mut self, at: usize, bytes: &[u8]);
}

/// The records of an app in a store.
pub struct Records<S> {
    store: S,
    /// In which the records are written.
    version: Version,
    layout: Layout,
    /// The last committed step.
    step: u64,
    app: Cell,
    tail: Tail,
    cells: BTreeMap<(Kind, u128), Cell>,
    /// Cells that may be used again, by kind in the order of [`KINDS`].
    free: [Vec<Cell>; 4],
    /// Cells freed by the last step: free once that is committed.
    freed: Vec<(Kind, Cell)>,
    /// Whether all is recorded in this version; else the next record is of everything.
    begun: bool,
}

/// There is no room for another record of this kind. Nothing was written; the step may be recorded later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    kind: &'static str,
    room: u32,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is room for the records of {} {}s only", self.room, self.kind)
    }
}

impl std::error::Error for Full {}

impl<S: Store> Records<S> {
    /// Begins records in a store of zeroes.
    pub fn new(store: S, layout: Layout) -> Self {
        Self::new_in(Version::OWN, store, layout)
    }

    /// The same in another version; for tests.
    #[doc(hidden)]
    pub fn new_in(version: Version, mut store: S, layout: Layout) -> Self {
        store.write(0, &layout.header());
        Records {
            store,
            version,
            layout,
            step: 0,
            app: Cell { number: 0, copy: 1, sum: 0 },
            tail: Tail::default(),
            cells: BTreeMap::new(),
            free: Default::default(),
            freed: Vec::new(),
            begun: false,
        }
    }

    /// Goes on with the records of a writer that is no more; the app is the one that [`super::restore`] made of them.
    /// What it left of a step that it did not commit is wiped out first. Can be repeated. If another version wrote
    /// them, all are written anew with the first step.
    ///
    /// # Errors
    /// Whatever [`super::restore`] would say.
    pub fn adopt(store: S) -> Result<Self, Refused> {
        Self::adopt_in(Version::OWN, store)
    }

    /// The same in another version; for tests.
    #[doc(hidden)]
    pub fn adopt_in(version: Version, store: S) -> Result<Self, Refused> {
        let contents = read(store.bytes(), version)?;
        let Contents { layout, step, app, tail, records, free, torn, versions, .. } = contents;
        let begun = versions.iter().all(|written| *written == version);
        let cells = records.iter().map(|(key, (cell, _))| (*key, *cell)).collect();
        let mut records = Records {
            store,
            version,
            layout,
            step,
            app,
            tail,
            cells,
            free: Default::default(),
            freed: free,
            begun,
        };
        for at in torn {
            records.store.write(at, &NOTHING);
        }
        Ok(records)
    }

    /// The number of the last committed step, from 1; 0 before the first.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Where the records are kept.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The same, to be changed: what is written there must leave the records as they are.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// The store, when nothing more is recorded.
    pub fn into_store(self) -> S {
        self.store
    }

    /// Where the pid of a recorded worker is to be written, in bytes from the beginning.
    #[must_use]
    pub fn pid_word(&self, worker: WorkerId) -> Option<usize> {
        let cell = self.cells.get(&(Kind::Worker, u128::from(worker.0)))?;
        Some(pid_word(cell.number))
    }

    /// Records what has changed since the last time, all of it or nothing. To be called after every step, before its
    /// effects are performed.
    ///
    /// # Errors
    /// When there is no room: nothing was written, and the changes stay noted.
    pub fn record(&mut self, app: &mut App) -> Result<(), Full> {
        let everything = !self.begun || !app.shared.changes.recorded;
        app.shared.changes.sort();
        let mut changed = named(&app.shared.changes);
        if everything {
            changed.retain(|name| !name.exists(app));
            changed.extend(names(app));
        }
        self.has_room(app, &changed)?;
        self.reuse_freed();
        let step = self.step + 1;
        for name in changed {
            self.write_one(app, step, name);
        }
        self.app = self.write_copy(step, Kind::App, self.app, &encode_app(app, self.tail, self.version));
        self.store.write(COMMIT_AT, &step.to_le_bytes());
        self.step = step;
        self.begun = true;
        app.shared.changes.clear();
        Ok(())
    }

    fn has_room(&self, app: &App, changed: &[Name]) -> Result<(), Full> {
        for (place, kind) in KINDS.into_iter().enumerate() {
            let new = |name: &&Name| {
                name.kind() == kind && !self.cells.contains_key(&(kind, name.key())) && name.exists(app)
            };
            let needed = changed.iter().filter(new).count();
            let freed = self.freed.iter().filter(|(of, _)| *of == kind).count();
            let free = self.free[place].len() + freed;
            let room = self.layout.count(kind);
            let unused = room.saturating_sub(self.tail.used[place]) as usize;
            if needed > free + unused {
                return Err(Full { kind: kind.word(), room });
            }
        }
        Ok(())
    }

    /// The step that freed these cells is committed: they may be used again.
    fn reuse_freed(&mut self) {
        for (kind, cell) in std::mem::take(&mut self.freed) {
            if kind == Kind::Worker {
                self.store.write(pid_word(cell.number), &NOTHING);
            }
            self.free[place_of(kind)].push(cell);
        }
    }

    fn write_one(&mut self, app: &App, step: u64, name: Name) {
        let key = (name.kind(), name.key());
        let known = self.cells.get(&key).copied();
        match (name.encode(app, self.version), known) {
            (Some(body), _) => {
                let before = known.unwrap_or_else(|| self.new_cell(key.0));
                let cell = self.write_copy(step, key.0, before, &body);
                let gone = known.map_or(0, |cell| cell.sum);
                self.tail.digest = self.tail.digest.wrapping_sub(gone).wrapping_add(cell.sum);
                self.cells.insert(key, cell);
            }
            (None, Some(cell)) => {
                self.cells.remove(&key);
                self.tail.digest = self.tail.digest.wrapping_sub(cell.sum);
                let cell = self.write_copy(step, key.0, cell, &Body::tombstone(key.0, key.1, self.version));
                self.freed.push((key.0, cell));
            }
            (None, None) => {}
        }
    }

    /// A cell that is free, or was never used. A writer that ended in its first step may have left its first copy,
    /// which is written over now; its second one is empty.
    fn new_cell(&mut self, kind: Kind) -> Cell {
        let place = place_of(kind);
        if let Some(cell) = self.free[place].pop() {
            return cell;
        }
        let number = self.tail.used[place];
        self.tail.used[place] += 1;
        Cell { number, copy: 1, sum: 0 }
    }

    /// Writes over the copy that does not count.
    fn write_copy(&mut self, step: u64, kind: Kind, cell: Cell, body: &Body) -> Cell {
        let other = 1 - cell.copy;
        let mut bytes = [0; FRONT + MOST];
        let (sum, len) = copy(step, body, &mut bytes);
        self.store.write(self.layout.copy_at(kind, cell.number, other), &bytes[..len]);
        Cell { copy: other, sum, ..cell }
    }
}

fn place_of(kind: Kind) -> usize {
    KINDS.iter().position(|of| *of == kind).unwrap_or(0)
}

fn named(changes: &Changes) -> Vec<Name> {
    let broker = |broker: &BrokerId| Name::Broker(*broker);
    let mut names: Vec<Name> = changes.brokers.iter().map(broker).collect();
    names.extend(changes.slots.iter().map(|(broker, slot)| Name::Slot(*broker, *slot)));
    names.extend(changes.workers.iter().map(|(broker, worker)| Name::Worker(*broker, *worker)));
    names.extend(changes.commands.iter().map(|request| Name::Command(*request)));
    names
}

const NOTHING: [u8; 8] = [0; 8];
