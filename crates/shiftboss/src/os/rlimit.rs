//! The limit of open files: raised for ourselves, restored for the workers.
//!
//! We hold a few descriptors for every worker; a worker may use `select(2)`, which breaks above 1024 and is why the
//! soft limit is low by custom. `spawn` puts the original back in the child.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A soft and a hard limit of open files (`RLIMIT_NOFILE`, see `getrlimit(2)`); `u64::MAX` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Nofile {
    /// What is enforced.
    pub soft: u64,
    /// Up to which the soft one may be raised without a privilege.
    pub hard: u64,
}

/// How many files we may have open, once the soft limit is raised: the hard one.
#[must_use]
pub fn most_open_files() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// How many files this process may have open as it is (`RLIMIT_NOFILE`, the soft limit).
#[must_use]
pub fn open_files_now() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Raises our soft limit to the hard one and returns what both were before, for the workers. Process-wide.
///
/// # Errors
/// EPERM if the hard limit lies above `/proc/sys/fs/nr_open`, which happens only when that was lowered since.
pub fn raise_nofile() -> io::Result<Nofile> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    Ok(Nofile { soft: limit.current.unwrap_or(u64::MAX), hard: limit.maximum.unwrap_or(u64::MAX) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::spawn::trial::elsewhere;

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one_and_the_original_is_told() {
        if elsewhere(module_path!(), "the_soft_limit_is_raised_to_the_hard_one_and_the_original_is_told") {
            return;
        }
        setrlimit(Resource::Nofile, Rlimit { current: Some(100), maximum: Some(200) }).unwrap();
        assert_eq!(raise_nofile().unwrap(), Nofile { soft: 100, hard: 200 });
        let raised = getrlimit(Resource::Nofile);
        assert_eq!((raised.current, raised.maximum), (Some(200), Some(200)));
        assert_eq!(raise_nofile().unwrap(), Nofile { soft: 200, hard: 200 });
    }
}
