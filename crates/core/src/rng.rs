//! Randomness from a seed, for jitter only (SplitMix64, public domain).

use std::time::Duration;

#[derive(Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Rng(seed)
    }

    /// What [`Rng::new`] makes the same sequence of.
    pub(crate) fn state(&self) -> u64 {
        self.0
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// `wait`, shortened or lengthened by up to `share` of itself.
    pub(crate) fn jitter(&mut self, wait: Duration, share: f64) -> Duration {
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        let factor = 1.0 + share.clamp(0.0, 1.0) * (2.0 * unit - 1.0);
        // Too long for a duration, or a share that is no number: unvaried.
        Duration::try_from_secs_f64(wait.as_secs_f64() * factor).unwrap_or(wait)
    }
}
