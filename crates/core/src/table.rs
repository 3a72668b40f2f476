//! A table by worker id. Whoever was looked for last is found again at once, however many there are: one thing that
//! happens to a worker looks for it several times.

use std::cell::Cell;
use std::collections::BTreeMap;

use crate::id::WorkerId;

#[derive(Clone)]
pub(crate) struct Table<T> {
    places: BTreeMap<WorkerId, usize>,
    /// Rows in no order; `None` is free.
    rows: Vec<Option<T>>,
    free: Vec<usize>,
    last: Cell<Option<(WorkerId, usize)>>,
}

impl<T> Table<T> {
    pub(crate) const fn new() -> Self {
        Table { places: BTreeMap::new(), rows: Vec::new(), free: Vec::new(), last: Cell::new(None) }
    }

    pub(crate) fn get(&self, id: &WorkerId) -> Option<&T> {
        self.rows.get(self.place(*id)?)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: &WorkerId) -> Option<&mut T> {
        let place = self.place(*id)?;
        self.rows.get_mut(place)?.as_mut()
    }

    pub(crate) fn contains_key(&self, id: &WorkerId) -> bool {
        self.place(*id).is_some()
    }

    /// An id comes once in an app's life.
    pub(crate) fn insert(&mut self, id: WorkerId, row: T) {
        let place = self.free.pop().unwrap_or(self.rows.len());
        match self.rows.get_mut(place) {
            Some(free) => *free = Some(row),
            None => self.rows.push(Some(row)),
        }
        self.places.insert(id, place);
        self.last.set(Some((id, place)));
    }

    pub(crate) fn remove(&mut self, id: &WorkerId) -> Option<T> {
        let place = self.places.remove(id)?;
        self.last.set(None);
        self.free.push(place);
        self.rows.get_mut(place)?.take()
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// All, in order of their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&WorkerId, &T)> {
        self.places.iter().filter_map(|(id, place)| Some((id, self.rows.get(*place)?.as_ref()?)))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &WorkerId> {
        self.places.keys()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.iter().map(|(_, row)| row)
    }

    /// All, in no order.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.rows.iter_mut().flatten()
    }

    /// The same rows under other ids.
    pub(crate) fn renamed(mut self, name: impl Fn(WorkerId) -> WorkerId) -> Self {
        let mut renamed = Table::new();
        for (id, place) in self.places {
            if let Some(row) = self.rows.get_mut(place).and_then(Option::take) {
                renamed.insert(name(id), row);
            }
        }
        renamed
    }

    fn place(&self, id: WorkerId) -> Option<usize> {
        match self.last.get() {
            Some((last, place)) if last == id => Some(place),
            Some(_) | None => {
                let place = *self.places.get(&id)?;
                self.last.set(Some((id, place)));
                Some(place)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_gone_is_not_found_again_and_its_row_is_used_anew() {
        let mut table = Table::new();
        for id in 1..=3 {
            table.insert(WorkerId(id), id);
        }
        assert_eq!(table.get(&WorkerId(2)), Some(&2));
        assert_eq!(table.remove(&WorkerId(2)), Some(2));
        assert_eq!(table.get(&WorkerId(2)), None);
        table.insert(WorkerId(4), 4);
        assert_eq!(table.rows.len(), 3);
        assert_eq!(table.iter().map(|(id, row)| (id.0, *row)).collect::<Vec<_>>(), [(1, 1), (3, 3), (4, 4)]);
        assert_eq!((table.len(), table.get(&WorkerId(2))), (3, None));
    }
}
