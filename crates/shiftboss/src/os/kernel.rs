//! The kernel's version: what is older than we need is refused with a word, not by a strange error later.

/// Major and minor version.
type Version = (u32, u32);

/// What is needed: `clone` with `CLONE_PIDFD` (5.2), `waitid` with `P_PIDFD` (5.4), `close_range` (5.9) and the fixes
/// that 5.10 is known to have.
const NEEDED: Version = (5, 10);

/// Why this kernel will not do.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("this is Linux {release}; 5.10 or newer is needed")]
pub struct TooOld {
    release: String,
}

/// Checks the running kernel; a release that cannot be read is given the benefit of the doubt.
///
/// # Errors
/// [`TooOld`].
pub fn check() -> Result<(), TooOld> {
    check_release(&rustix::system::uname().release().to_string_lossy())
}

fn check_release(release: &str) -> Result<(), TooOld> {
    match read(release) {
        Some(version) if version < NEEDED => Err(TooOld { release: release.to_owned() }),
        Some(_) | None => Ok(()),
    }
}

/// "5.10.0-28-amd64", "6.18-rc1".
fn read(release: &str) -> Option<Version> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_refused_by_number() {
        for old in ["5.9.16", "4.19.0-27-amd64", "3.10.0-1160.el7.x86_64"] {
            assert_eq!(check_release(old), Err(TooOld { release: old.to_owned() }));
        }
        for new in ["5.10.0-28-amd64", "6.1", "6.18-rc1", "10.0.0", "strange"] {
            assert_eq!(check_release(new), Ok(()), "{new}");
        }
        assert_eq!(check(), Ok(()));
    }
}
