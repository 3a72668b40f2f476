//! Numbers that nobody can foresee (`getrandom(2)`).

use rustix::rand::{GetRandomFlags, getrandom};

use super::clock;

/// A number that nobody else has.
#[must_use]
pub fn random() -> u128 {
    let mut bytes = [0; 16];
    // Without randomness the time still tells two apart.
    if getrandom(&mut bytes, GetRandomFlags::empty()).is_err() {
        return u128::from(clock::now().0);
    }
    u128::from_ne_bytes(bytes)
}
