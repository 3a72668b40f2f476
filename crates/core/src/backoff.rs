//! How long a slot waits for its next worker, and when a broker counts as degraded.

use std::time::Duration;

use crate::rng::Rng;
use crate::spec::BackoffSpec;

impl BackoffSpec {
    /// The wait after so many failures in a row: none after the first, then `base`, doubled each time, at most
    /// `cap`; varied by a tenth so that slots which failed together do not come back together.
    pub(crate) fn delay(&self, failures: u32, rng: &mut Rng) -> Duration {
        let Some(doublings) = failures.checked_sub(2) else { return Duration::ZERO };
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        rng.jitter(self.base.saturating_mul(factor).min(self.cap), JITTER)
    }
}

/// A slot with this many failures in a row makes its broker degraded.
pub(crate) const DEGRADED_AT: u32 = 2;
const JITTER: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_respawn_is_immediate_then_delays_double_up_to_the_cap() {
        let spec = BackoffSpec::default();
        let mut rng = Rng::new(7);
        let delays: Vec<f64> = (1..=40).map(|k| spec.delay(k, &mut rng).as_secs_f64()).collect();
        assert_eq!(delays[0], 0.0);
        for (k, delay) in delays.iter().enumerate().skip(1) {
            let plain = (0.1 * 2f64.powi(k as i32 - 1)).min(30.0);
            assert!((0.9 * plain..=1.1 * plain).contains(delay), "failure {}: {delay} s", k + 1);
        }
    }
}
