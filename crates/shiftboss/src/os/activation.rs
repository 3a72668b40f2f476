//! Sockets passed from parent to child, both sides of `sd_listen_fds(3)`: what a worker is told, and what a worker
//! written in Rust takes over.
//!
//! `LISTEN_PID` is set by `spawn`, since only the child knows its pid.
#![allow(unsafe_code)]

use std::env;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// The first passed descriptor, `SD_LISTEN_FDS_START`; the others follow without a gap.
pub const FIRST: RawFd = 3;

/// The variables that tell a worker which listeners it has from [`FIRST`] on, `LISTEN_FDS` and `LISTEN_FDNAMES`. What
/// no name may hold, `:` and control characters, becomes `_` (`sd_listen_fds_with_names(3)`).
#[must_use]
pub fn variables(names: &[String]) -> [(&'static str, String); 2] {
    let clean = |name: &String| name.replace(|c: char| c == ':' || c.is_control(), "_");
    let names: Vec<String> = names.iter().map(clean).collect();
    [("LISTEN_FDS", names.len().to_string()), ("LISTEN_FDNAMES", names.join(":"))]
}

/// Why passed sockets could not be taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InheritError {
    /// `LISTEN_FDS` is no number of descriptors.
    #[error("LISTEN_FDS is `{0}`: expected a number from 0 to {MOST}")]
    Count(String),
    /// `LISTEN_FDNAMES` names more or fewer than there are.
    #[error("LISTEN_FDNAMES has {names} names, LISTEN_FDS says {descriptors}")]
    Names {
        /// So many names.
        names: usize,
        /// So many descriptors.
        descriptors: usize,
    },
    /// There is no such descriptor, though `LISTEN_FDS` counts it.
    #[error("descriptor {0} is not open, though LISTEN_FDS counts it")]
    Closed(RawFd),
    /// The descriptor is close-on-exec, so it was not passed to this process but opened or taken over in it.
    #[error("descriptor {0} belongs to another part of this process already")]
    Taken(RawFd),
}

/// For a worker: the sockets passed to this very process, with their names ("unknown" where none are told), in order,
/// from now on close-on-exec. Once in a process: a second call gives none, as does a process that was passed none.
/// To be called before anything else in the process takes them over. The variables stay as they are; a child of the
/// worker sees in `LISTEN_PID` that they are not for it.
///
/// # Errors
/// [`InheritError`]; then nothing was taken over.
pub fn inherited() -> Result<Vec<(String, OwnedFd)>, InheritError> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let ours = env::var("LISTEN_PID").is_ok_and(|pid| pid.parse() == Ok(std::process::id()));
    if !ours || TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let text = |name| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let names = names(&text("LISTEN_FDS").unwrap_or_default(), text("LISTEN_FDNAMES").as_deref())?;
    for (descriptor, _) in (FIRST..).zip(&names) {
        check(descriptor)?;
    }
    Ok((FIRST..).zip(names).map(|(descriptor, name)| (name, take(descriptor))).collect())
}

/// For a worker: the descriptor of this number that was passed to this very process, from now on close-on-exec.
///
/// # Errors
/// [`InheritError`] if there is none, or another part of the process has taken it over.
pub fn passed(descriptor: RawFd) -> Result<OwnedFd, InheritError> {
    check(descriptor)?;
    Ok(take(descriptor))
}

/// As many names as there are descriptors.
fn names(count: &str, names: Option<&str>) -> Result<Vec<String>, InheritError> {
    let descriptors = count.parse().ok().filter(|count| *count <= MOST);
    let descriptors = descriptors.ok_or_else(|| InheritError::Count(count.to_owned()))?;
    let names: Vec<String> = match names {
        Some("") if descriptors == 0 => Vec::new(),
        Some(names) => names.split(':').map(str::to_owned).collect(),
        None => vec!["unknown".to_owned(); descriptors],
    };
    if names.len() == descriptors {
        Ok(names)
    } else {
        Err(InheritError::Names { names: names.len(), descriptors })
    }
}

/// What has survived `execve(2)` is not close-on-exec, and what Rust opens always is.
fn check(descriptor: RawFd) -> Result<(), InheritError> {
    // SAFETY: only asked for its flags; a number that is not open is an error there.
    match fcntl_getfd(unsafe { BorrowedFd::borrow_raw(descriptor) }) {
        Ok(flags) if flags.contains(FdFlags::CLOEXEC) => Err(InheritError::Taken(descriptor)),
        Ok(_) => Ok(()),
        Err(_) => Err(InheritError::Closed(descriptor)),
    }
}

fn take(descriptor: RawFd) -> OwnedFd {
    // SAFETY: open, passed by our parent for us to own, and owned by nobody yet: it is not close-on-exec, and this
    // happens once in a process.
    let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
    // It fails for a descriptor that is not open only.
    let _ = fcntl_setfd(&socket, FdFlags::CLOEXEC);
    socket
}

/// More than that is no plausible number.
const MOST: usize = 1024;

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::net::TcpListener;
    use std::os::fd::{AsFd, AsRawFd};

    use super::*;
    use crate::os::spawn::{Start, trial};

    /// Runs the calling test in a process that is passed these sockets; its output.
    fn pass(test: &str, sockets: &[&TcpListener], environment: &[(&str, &str)]) -> String {
        let (_, module) = module_path!().split_once("::").unwrap();
        let this = std::env::current_exe().unwrap();
        let name = format!("{module}::{test}");
        let words = [this.to_str().unwrap(), &name, "--exact", "--nocapture", "--test-threads=1"];
        let program = trial::program(&words);
        let descriptors: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).zip(FIRST..).collect();
        let environment: Vec<CString> =
            environment.iter().map(|(key, value)| CString::new(format!("{key}={value}")).unwrap()).collect();
        let start = Start {
            descriptors: &descriptors,
            environment: &environment,
            listen_pid: true,
            ..trial::start(&program)
        };
        trial::output(&start)
    }

    fn passed() -> bool {
        env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string())
    }

    fn listener() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").unwrap()
    }

    #[test]
    fn passed_sockets_are_taken_over_once_with_their_names() {
        if passed() {
            let taken = inherited().unwrap();
            for (name, socket) in taken {
                assert!(fcntl_getfd(&socket).unwrap().contains(FdFlags::CLOEXEC));
                println!("{name} {} {}", socket.as_raw_fd(), TcpListener::from(socket).local_addr().unwrap());
            }
            println!("again {}", inherited().unwrap().len());
            return;
        }
        let (web, admin) = (listener(), listener());
        let variables = variables(&["web".into(), "admin:tls\n".into()]);
        let variables: Vec<_> = variables.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let output = pass("passed_sockets_are_taken_over_once_with_their_names", &[&web, &admin], &variables);
        assert!(output.contains(&format!("web 3 {}\n", web.local_addr().unwrap())), "{output}");
        assert!(
            output.contains(&format!("admin_tls_ 4 {}\nagain 0\n", admin.local_addr().unwrap())),
            "{output}"
        );
    }

    #[test]
    fn a_count_that_is_not_true_takes_nothing_over() {
        if passed() {
            println!("got {:?}", inherited());
            // SAFETY: open, or the check fails.
            let three = unsafe { BorrowedFd::borrow_raw(FIRST) };
            assert!(!fcntl_getfd(three).unwrap().contains(FdFlags::CLOEXEC));
            return;
        }
        let test = "a_count_that_is_not_true_takes_nothing_over";
        let output = pass(test, &[&listener()], &[("LISTEN_FDS", "900")]);
        // What follows was opened by the process itself, or is not open.
        assert!(output.contains("got Err(Taken(4))") || output.contains("got Err(Closed(4))"), "{output}");
        assert!(output.contains("1 passed"), "{output}");
    }

    #[test]
    fn sockets_for_another_process_are_left_alone() {
        assert!(!passed());
        assert_eq!(inherited().map(|taken| taken.len()), Ok(0));
    }

    #[test]
    fn a_worker_is_told_as_many_names_as_sockets() {
        let told = variables(&["api".into(), String::new(), "a:b\tc".into()]);
        assert_eq!(told, [("LISTEN_FDS", "3".into()), ("LISTEN_FDNAMES", "api::a_b_c".into())]);
        assert_eq!(names("3", Some("api::a_b_c")).unwrap(), ["api", "", "a_b_c"]);
        assert_eq!(names("2", None).unwrap(), ["unknown", "unknown"]);
        assert_eq!(names("0", Some("")), Ok(Vec::new()));
        assert_eq!(names("1", Some("a:b")), Err(InheritError::Names { names: 2, descriptors: 1 }));
        for count in ["", "-1", "1025", "99999999999999999999", "1 "] {
            assert_eq!(names(count, None), Err(InheritError::Count(count.into())));
        }
    }
}
