//! What a started program sees, and what is left when it could not be started.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Instant;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::trial::{elsewhere, has_children, open_descriptors, output, program, read, sh, start};
use super::*;
use crate::os::lines;
use crate::os::reaper::{Exit, Reaper};

fn inheritable(file: &std::fs::File) {
    fcntl_setfd(file, FdFlags::empty()).unwrap();
}

#[test]
fn the_child_has_the_planned_descriptors_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let leak = std::fs::File::create(dir.path().join("leak")).unwrap();
    inheritable(&leak);
    let planned = std::fs::File::create(dir.path().join("planned")).unwrap();
    let list = program(&["/bin/ls", "/proc/self/fd"]);
    // The lowest free one is the directory that `ls` itself reads.
    let plan = |descriptors| output(&Start { descriptors, ..start(&list) }).replace('\n', " ");
    assert_eq!(plan(&[]), "0 1 2 3 ");
    assert_eq!(plan(&[(planned.as_fd(), 3), (planned.as_fd(), 7)]), "0 1 2 3 4 7 ");
}

#[test]
fn where_close_range_is_refused_the_rest_is_closed_all_the_same() {
    if elsewhere(module_path!(), "where_close_range_is_refused_the_rest_is_closed_all_the_same") {
        return;
    }
    let leak = std::fs::File::open("/dev/null").unwrap();
    inheritable(&leak);
    refuse(libc::SYS_close_range);
    let list = program(&["/bin/ls", "/proc/self/fd"]);
    let descriptors = [(leak.as_fd(), 9)];
    let listed = output(&Start { descriptors: &descriptors, ..start(&list) });
    assert_eq!(listed.replace('\n', " "), "0 1 2 3 9 ");
}

#[test]
fn where_unshare_is_refused_too_a_child_has_a_table_of_descriptors_of_its_own_from_the_start() {
    if elsewhere(
        module_path!(),
        "where_unshare_is_refused_too_a_child_has_a_table_of_descriptors_of_its_own_from_the_start",
    ) {
        return;
    }
    let leak = std::fs::File::open("/dev/null").unwrap();
    inheritable(&leak);
    refuse(libc::SYS_close_range);
    refuse(libc::SYS_unshare);
    let before = open_descriptors();
    let list = program(&["/bin/ls", "/proc/self/fd"]);
    let descriptors = [(leak.as_fd(), 9)];
    let listed = output(&Start { descriptors: &descriptors, ..start(&list) });
    assert_eq!(listed.replace('\n', " "), "0 1 2 3 9 ");
    assert_eq!(open_descriptors(), before);
}

/// Has the kernel answer ENOSYS to one system call, for this process and its children (`seccomp(2)`).
fn refuse(number: i64) {
    let statement = |code: u32, k: u32, jt, jf| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let mut filter = [
        statement(load, 0, 0, 0),
        statement(equal, number as u32, 0, 1),
        statement(libc::BPF_RET, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32, 0, 0),
        statement(libc::BPF_RET, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let filter = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: a valid filter that lives until the call returns.
    let results = unsafe {
        [
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter),
        ]
    };
    assert_eq!(results, [0, 0]);
}

#[test]
fn descriptors_that_are_each_others_targets_arrive_where_they_should() {
    let dir = tempfile::tempdir().unwrap();
    let files = ["a", "b", "c"].map(|name| std::fs::File::create(dir.path().join(name)).unwrap());
    let [a, b, c] = files.each_ref().map(AsRawFd::as_raw_fd);
    // a goes to b's number, b to c's, c to a's, and our standard error to yet another.
    let descriptors: [(BorrowedFd<'_>, RawFd); 3] =
        [(files[0].as_fd(), b), (files[1].as_fd(), c), (files[2].as_fd(), a)];
    let words = [a, b, c].map(|number| format!("/proc/self/fd/{number}"));
    let list = program(&["/bin/readlink", &words[0], &words[1], &words[2]]);
    let seen = output(&Start { descriptors: &descriptors, ..start(&list) });
    let expected = ["c", "a", "b"].map(|name| dir.path().join(name).display().to_string());
    assert_eq!(seen.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn our_own_standard_descriptors_can_be_given_under_other_numbers() {
    let stderr = std::io::stderr();
    let list = program(&["/bin/readlink", "/proc/self/fd/0", "/proc/self/fd/2", "/proc/self/fd/5"]);
    let seen = output(&Start { descriptors: &[(stderr.as_fd(), 5)], ..start(&list) });
    let ours = std::fs::read_link("/proc/self/fd/2").unwrap();
    let ours = ours.to_str().unwrap();
    assert_eq!(seen.lines().collect::<Vec<_>>(), ["/dev/null", "/dev/null", ours]);
}

#[test]
fn a_given_descriptor_survives_the_exec_under_its_own_number_too() {
    let file = std::fs::File::open("/dev/zero").unwrap();
    let number = file.as_raw_fd();
    let list = program(&["/bin/readlink", &format!("/proc/self/fd/{number}")]);
    assert_eq!(output(&Start { descriptors: &[(file.as_fd(), number)], ..start(&list) }), "/dev/zero\n");
}

#[test]
fn the_child_ignores_and_blocks_nothing_whatever_we_do() {
    if elsewhere(module_path!(), "the_child_ignores_and_blocks_nothing_whatever_we_do") {
        return;
    }
    let signals = crate::os::signals::Signals::new(&[libc::SIGTERM, libc::SIGUSR2, 40]).unwrap();
    for number in [libc::SIGHUP, libc::SIGPIPE, 45, 64] {
        // SAFETY: sets no handler.
        unsafe { libc::signal(number, libc::SIG_IGN) };
    }
    let status = output(&start(&program(&["/bin/cat", "/proc/self/status"])));
    for field in ["SigPnd", "SigBlk", "SigIgn", "SigCgt"] {
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        assert_eq!(line, format!("{field}:\t0000000000000000"));
    }
    let ours = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    assert!(ours.contains("SigBlk:\t0000008000004800"), "our own mask is as before: {ours}");
    drop(signals);
}

#[test]
fn the_child_learns_its_own_pid() {
    let script = sh("echo $LISTEN_PID $$ $X");
    let environment = [CString::new("X=1").unwrap()];
    let seen = output(&Start { listen_pid: true, environment: &environment, ..start(&script) });
    let words: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!((words.len(), words[0], words[2]), (3, words[1], "1"));
    let seen = output(&start(&sh("echo ${LISTEN_PID-none}")));
    assert_eq!(seen, "none\n");
}

#[test]
fn nothing_of_our_environment_is_inherited() {
    let environment = [CString::new("A=b c").unwrap(), CString::new("EMPTY=").unwrap()];
    let print = program(&["/usr/bin/env"]);
    assert_eq!(output(&Start { environment: &environment, ..start(&print) }), "A=b c\nEMPTY=\n");
}

#[test]
fn the_child_leads_a_process_group_of_its_own() {
    let status = output(&start(&program(&["/bin/cat", "/proc/self/stat"])));
    let fields: Vec<&str> = status.split(' ').collect();
    assert_eq!((fields[0], fields[3]), (fields[4], std::process::id().to_string().as_str()));
}

#[test]
fn the_limit_of_open_files_is_the_given_one() {
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let script = sh("ulimit -Sn; ulimit -Hn");
    let nofile = Some(Nofile { soft: 77, hard });
    let seen = output(&Start { nofile, ..start(&script) });
    assert_eq!(seen.lines().next(), Some("77"));
    if hard != u64::MAX {
        assert_eq!(seen.lines().nth(1), Some(hard.to_string().as_str()));
    }
}

#[test]
fn the_child_works_where_it_is_told() {
    let mut program = program(&["/bin/pwd"]);
    program.cwd = Some(CString::new("/usr").unwrap());
    assert_eq!(output(&start(&program)), "/usr\n");
}

#[test]
fn the_child_dies_with_the_thread_that_started_it_if_it_should() {
    let script = sh("kill -STOP $$");
    let spawned = std::thread::scope(|scope| {
        scope.spawn(|| spawn(&Start { death_signal: true, ..start(&script) }).unwrap()).join().unwrap()
    });
    let mut reaper = Reaper::default();
    reaper.watch(1, spawned);
    assert!(super::trial::readable(reaper.pidfd(1).unwrap()));
    assert_eq!(reaper.reap(1).unwrap().exit, Exit::Signal(9));
}

fn refused(program: &Program) -> SpawnError {
    spawn(&start(program)).unwrap_err()
}

#[test]
fn an_error_names_the_step_the_file_and_the_reason() {
    let mut elsewhere = program(&["/bin/true"]);
    elsewhere.cwd = Some(CString::new("/no/dir").unwrap());
    let error = refused(&elsewhere);
    assert_eq!((error.step, error.errno), (Step::Directory, libc::ENOENT));
    assert_eq!(error.to_string(), "cannot enter `/no/dir`: No such file or directory (ENOENT)");

    let error = refused(&program(&["/no/program"])).to_string();
    assert_eq!(error, "cannot start `/no/program`: execve: No such file or directory (ENOENT)");

    let error = refused(&program(&["/etc/passwd"])).to_string();
    assert_eq!(error, "cannot start `/etc/passwd`: execve: Permission denied (EACCES)");
}

#[test]
fn a_missing_interpreter_is_told_from_a_missing_program() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    for (text, end) in [("#!/no/interpreter\n", "is not"), ("no first line", "like `#!/bin/sh`")] {
        let path = dir.path().join("script");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let error = refused(&program(&[path.to_str().unwrap()])).to_string();
        assert!(error.ends_with(end), "{error}");
    }
}

#[test]
fn a_failed_start_leaves_no_zombie_and_no_descriptor() {
    if elsewhere(module_path!(), "a_failed_start_leaves_no_zombie_and_no_descriptor") {
        return;
    }
    let before = open_descriptors();
    for _ in 0..50 {
        assert_eq!(refused(&program(&["/no/program"])).step, Step::Execute);
    }
    assert!(!has_children());
    assert_eq!(open_descriptors(), before);
}

#[test]
fn at_the_limit_of_open_files_nothing_is_started_and_it_is_said() {
    if elsewhere(module_path!(), "at_the_limit_of_open_files_nothing_is_started_and_it_is_said") {
        return;
    }
    let hard = getrlimit(Resource::Nofile).maximum;
    let used = std::fs::File::open("/dev/null").unwrap();
    let below = used.as_raw_fd();
    let room =
        |current| setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: hard }).unwrap();
    let truth = program(&["/bin/true"]);
    room(u64::from(below.unsigned_abs()));
    assert_eq!(refused(&truth).step, Step::Null);
    let descriptors = [(used.as_fd(), 0), (used.as_fd(), 1), (used.as_fd(), 2)];
    let error = spawn(&Start { descriptors: &descriptors, ..start(&truth) }).unwrap_err();
    assert_eq!((error.step, error.errno), (Step::Clone, libc::EMFILE));
    assert_eq!(
        error.to_string(),
        "cannot start `/bin/true`: clone: Too many open files (EMFILE); \
         our limit of open files (RLIMIT_NOFILE) is reached"
    );
    assert!(!has_children());
    room(1000);
    let far = [(used.as_fd(), 1000)];
    let error = spawn(&Start { descriptors: &far, ..start(&truth) }).unwrap_err();
    assert!(matches!(error.step, Step::Descriptor(_)), "{error}");
    assert!(!has_children());
}

#[test]
fn many_starts_from_many_threads_leak_nothing() {
    if elsewhere(module_path!(), "many_starts_from_many_threads_leak_nothing") {
        return;
    }
    let before = open_descriptors();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                let mut reaper = Reaper::default();
                for round in 0..50 {
                    let (reader, writer) = lines::pipe().unwrap();
                    rustix::fs::fcntl_setfl(&reader, rustix::fs::OFlags::empty()).unwrap();
                    let script = sh(&format!("echo {thread} {round}; exit {round}"));
                    let descriptors = [(writer.as_fd(), 1)];
                    let child = spawn(&Start { descriptors: &descriptors, ..start(&script) }).unwrap();
                    drop(writer);
                    reaper.watch(round, child);
                    assert_eq!(read(reader), format!("{thread} {round}\n"));
                    assert_eq!(reaper.await_end(round).unwrap().exit, Exit::Code(round as i32));
                }
            });
        }
    });
    assert!(!has_children());
    assert_eq!(open_descriptors(), before);
}

#[test]
fn beside_many_descriptors_the_child_has_the_planned_ones_too_and_nothing_stays_open() {
    if elsewhere(
        module_path!(),
        "beside_many_descriptors_the_child_has_the_planned_ones_too_and_nothing_stays_open",
    ) {
        return;
    }
    let many: Vec<_> = (0..500).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    let list = program(&["/bin/ls", "/proc/self/fd"]);
    let planned = |last: RawFd| (3..=last).map(|target| (many[0].as_fd(), target)).collect::<Vec<_>>();
    let listed = |descriptors: &[_]| output(&Start { descriptors, ..start(&list) }).replace('\n', " ");
    assert_eq!(listed(&planned(5)), "0 1 2 3 4 5 6 ");
    let before = open_descriptors();
    // More than there are places, and then a few again.
    assert_eq!(listed(&planned(12)), "0 1 10 11 12 13 2 3 4 5 6 7 8 9 ");
    assert_eq!(listed(&planned(5)), "0 1 2 3 4 5 6 ");
    refused(&program(&["/no/program"]));
    assert_eq!(open_descriptors(), before);
}

/// Prints what a start costs, beside the standard library's; run it with `--nocapture`.
#[test]
fn a_start_costs_no_more_than_it_must() {
    let truth = program(&["/bin/true"]);
    let rounds = 100;
    let mut reaper = Reaper::default();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let begin = Instant::now();
        let child = spawn(&start(&truth)).unwrap();
        ours.push(begin.elapsed());
        reaper.watch(round, child);
        assert_eq!(reaper.await_end(round).unwrap().exit, Exit::Code(0));
        let begin = Instant::now();
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        theirs.push(begin.elapsed());
        child.wait().unwrap();
    }
    ours.sort();
    theirs.sort();
    let middle = ours.len() / 2;
    println!("start of /bin/true, median: {:?}, std::process::Command: {:?}", ours[middle], theirs[middle]);
}
