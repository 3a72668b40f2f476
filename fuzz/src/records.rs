//! Records of an app, changed by chance: as they are found by a successor.

use std::cell::RefCell;

use shiftboss_core::snapshot::{self, Records, Store as _};

use crate::bytes::Bytes;
use crate::core::{Life, Memory};

/// Records that were changed anywhere are refused, or are those of the last step or of the one before. With checksums
/// that fit the change, so that what is behind them is reached, they are refused, or are an app that can be looked at and
/// recorded again.
pub fn try_out(bytes: &[u8]) {
    thread_local! {
        static BASES: Vec<Base> = (0..BASES_TRIED).map(Base::new).collect();
        static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    let mut bytes = Bytes(bytes);
    let how = bytes.one();
    BASES.with(|bases| {
        SCRATCH.with_borrow_mut(|image| {
            let base = &bases[usize::from(how >> 1) % bases.len()];
            image.clear();
            image.extend_from_slice(&base.image);
            while !bytes.is_empty() {
                let at = base.used[usize::from(bytes.wide()) % base.used.len()];
                let value = bytes.one();
                match bytes.one() % 4 {
                    0 => image[at] ^= value,
                    1 => image[at] = value,
                    2 => image[at..].iter_mut().take(8).for_each(|byte| *byte = value),
                    _ => image.copy_within(at..(at + usize::from(value)).min(base.image.len()), at / 2),
                }
            }
            if how & 1 == 0 {
                base.is_refused_or_the_same(image)
            } else {
                base.is_refused_or_consistent(image)
            }
        });
    });
}

/// An app that has lived for a while.
struct Base {
    life: Life<'static>,
    image: Vec<u8>,
    /// What was recorded last, and before that.
    committed: Vec<Vec<u8>>,
    /// Where something is that was ever written.
    used: Vec<usize>,
}

impl Base {
    fn new(seed: u64) -> Base {
        let choices: Vec<u8> = (0..400)
            .scan(seed * 2 + 1, |state, _| {
                *state =
                    state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                Some((*state >> 56) as u8)
            })
            .collect();
        let mut life = Life::new(Bytes(choices.leak()));
        life.begin();
        let mut committed = Vec::new();
        while !life.bytes.is_empty() {
            life.step();
            let now = snapshot::committed(life.records.store().bytes()).expect("it was recorded");
            committed.retain(|known| *known != now);
            committed.push(now);
            committed.drain(..committed.len().saturating_sub(2));
        }
        let image = life.records.store().bytes().to_vec();
        let used = (0..image.len()).filter(|at| image[*at] != 0).collect();
        Base { life, image, committed, used }
    }

    fn is_refused_or_the_same(&self, image: &[u8]) {
        if let Ok(app) = self.life.restored(image) {
            assert!(app.is_consistent());
            let same = snapshot::committed(image).is_ok_and(|found| self.committed.contains(&found));
            assert!(same, "damaged records were taken for whole ones");
        }
    }

    fn is_refused_or_consistent(&self, image: &mut [u8]) {
        snapshot::sum_again(image);
        let Ok(app) = self.life.restored(image) else { return };
        let taken = Records::adopt(Memory(image.to_vec()));
        assert!(taken.is_ok(), "what was restored can be recorded again");
        drop(app.status());
        drop(app.roll());
    }
}

const BASES_TRIED: u64 = 16;
