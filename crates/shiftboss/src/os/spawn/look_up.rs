//! Finding a program once, before anything is started, the way a shell would find it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

/// Why a program cannot be run, found before it is tried.
#[derive(Debug, thiserror::Error)]
pub enum LookUpError {
    /// A bare name that is in no directory of `PATH`.
    #[error("`{program}` is in none of the {directories} directories of PATH")]
    NotFound {
        /// The name.
        program: String,
        /// How many were searched.
        directories: usize,
    },
    /// A path at which there is nothing.
    #[error("`{}` does not exist", .0.display())]
    Missing(PathBuf),
    /// A file that we may not execute.
    #[error("`{}` is not executable: for us it has no x permission, or its file system is mounted noexec", .0.display())]
    NotExecutable(PathBuf),
    /// A directory.
    #[error("`{}` is a directory", .0.display())]
    IsDirectory(PathBuf),
    /// It cannot be looked at, for instance since a directory above it may not be entered.
    #[error("`{}`: {source}", path.display())]
    Unreachable {
        /// What was looked at.
        path: PathBuf,
        /// Why it could not be.
        source: io::Error,
    },
}

/// The absolute path of `program`. With a slash in it, it is relative to `cwd`, or to ours if that is none; a bare name
/// is searched in `path_var` (`/usr/local/bin:/bin:/usr/bin` if none), whose relative and empty entries are relative to
/// `cwd` too. Symbolic links are kept: a link that points elsewhere later runs what it points to then.
///
/// # Errors
/// [`LookUpError`]. A bare name reports a file that is not executable only if no later directory has one that is, as
/// `execvp(3)` does.
pub fn look_up(program: &str, path_var: Option<&OsStr>, cwd: Option<&Path>) -> Result<PathBuf, LookUpError> {
    if program.contains('/') {
        return examine(&absolute(Path::new(program), cwd)?);
    }
    let path_var = path_var.map_or_else(|| OsString::from(DEFAULT_PATH), OsStr::to_owned);
    let mut directories = 0;
    let mut unusable = None;
    for directory in env::split_paths(&path_var).filter(|_| !program.is_empty()) {
        directories += 1;
        match examine(&absolute(&directory.join(program), cwd)?) {
            Ok(found) => return Ok(found),
            Err(error @ (LookUpError::NotExecutable(_) | LookUpError::IsDirectory(_))) => {
                unusable.get_or_insert(error);
            }
            Err(LookUpError::Missing(_) | LookUpError::Unreachable { .. } | LookUpError::NotFound { .. }) => {
            }
        }
    }
    Err(unusable.unwrap_or_else(|| LookUpError::NotFound { program: program.to_owned(), directories }))
}

fn absolute(path: &Path, cwd: Option<&Path>) -> Result<PathBuf, LookUpError> {
    let path = cwd.map_or_else(|| path.to_owned(), |cwd| cwd.join(path));
    std::path::absolute(&path).map_err(|source| LookUpError::Unreachable { path, source })
}

fn examine(path: &Path) -> Result<PathBuf, LookUpError> {
    let met = std::fs::metadata(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => LookUpError::Missing(path.to_owned()),
        _ => LookUpError::Unreachable { path: path.to_owned(), source },
    })?;
    if met.is_dir() {
        return Err(LookUpError::IsDirectory(path.to_owned()));
    }
    // A sandbox may refuse the question: then executing it says.
    if !met.is_file() || accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) == Err(Errno::ACCESS) {
        return Err(LookUpError::NotExecutable(path.to_owned()));
    }
    Ok(path.to_owned())
}

/// As most shells have it when `PATH` is not set.
const DEFAULT_PATH: &str = "/usr/local/bin:/bin:/usr/bin";

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn file(path: &Path, mode: u32) {
        fs::write(path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_name_with_a_slash_is_relative_to_the_working_directory() {
        let dir = tempfile::tempdir().unwrap();
        file(&dir.path().join("server"), 0o755);
        let found = look_up("./server", Some(OsStr::new("/bin")), Some(dir.path())).unwrap();
        assert_eq!(found, dir.path().join("server"));
        assert!(matches!(
            look_up("./sh", Some(OsStr::new("/bin")), Some(dir.path())),
            Err(LookUpError::Missing(_))
        ));
    }

    #[test]
    fn a_relative_working_directory_still_gives_an_absolute_path() {
        assert!(matches!(
            look_up("./no-such-program", None, Some(Path::new("src"))),
            Err(LookUpError::Missing(path)) if path.is_absolute() && path.ends_with("src/no-such-program")
        ));
    }

    #[test]
    fn a_bare_name_is_searched_in_order_and_past_what_cannot_be_run() {
        let (one, two, three) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        file(&one.path().join("x"), 0o644);
        file(&two.path().join("x"), 0o755);
        file(&three.path().join("x"), 0o755);
        let path = env::join_paths([one.path(), two.path(), three.path()]).unwrap();
        assert_eq!(look_up("x", Some(&path), None).unwrap(), two.path().join("x"));
        let only = env::join_paths([one.path()]).unwrap();
        assert!(matches!(look_up("x", Some(&only), None), Err(LookUpError::NotExecutable(_))));
    }

    #[test]
    fn what_was_searched_in_vain_is_told() {
        let error = look_up("no-such-program", Some(OsStr::new("/bin:/usr/bin")), None).unwrap_err();
        assert_eq!(error.to_string(), "`no-such-program` is in none of the 2 directories of PATH");
        assert!(matches!(look_up("", None, None), Err(LookUpError::NotFound { .. })));
    }

    #[test]
    fn a_directory_is_no_program() {
        assert!(matches!(look_up("/usr", None, None), Err(LookUpError::IsDirectory(_))));
    }
}
