//! Real processes that outlive those who started them.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use super::*;

const OLD: &str = "00112233445566aa";
const NEW: &str = "ffeeddccbbaa9988";
const LONG: Duration = Duration::from_secs(60);

/// A process of nobody, ended with the test.
struct Stray {
    pid: u32,
    pidfd: OwnedFd,
}

impl Stray {
    fn lives(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 0
    }
}

impl Drop for Stray {
    fn drop(&mut self) {
        let _ = pidfd::signal(self.pidfd.as_fd(), libc::SIGKILL);
    }
}

/// A folder for a socket's path: no other test looks for that one.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Place(tempfile::tempdir().unwrap())
    }

    fn socket(&self) -> std::path::PathBuf {
        self.0.path().join("shop.sock")
    }

    fn pids(&self, current: Option<&str>) -> BTreeSet<u32> {
        find(&self.socket(), current).iter().map(|leftover| leftover.pid).collect()
    }
}

/// What the script leaves behind, at most three, each asleep or stopped; each prints its pid on a line of its own.
fn strays(script: &str, mark: &OsStr) -> Vec<Stray> {
    let mut shell = Command::new("sh")
        .args(["-c", script])
        .env(VARIABLE, mark)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(shell.stdout.take().unwrap()).lines();
    let stray = |pid: u32| {
        let number = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        Stray { pid, pidfd: pidfd_open(number, PidfdFlags::empty()).unwrap() }
    };
    let strays: Vec<Stray> = lines.take(3).map(|line| stray(line.unwrap().parse().unwrap())).collect();
    shell.wait().unwrap();
    strays.iter().for_each(|stray| until_at_rest(stray.pid));
    strays
}

/// It has come to the end of its script: its program is the last one.
fn until_at_rest(pid: u32) {
    loop {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        match stat.rsplit_once(") ").unwrap().1.as_bytes()[0] {
            b'S' | b'T' => return,
            b'Z' => panic!("{stat}"),
            _ => std::thread::yield_now(),
        }
    }
}

/// One that sleeps.
fn sleeper(mark: &OsStr) -> Stray {
    strays("sh -c 'echo $$; exec sleep 1000 >&-' &", mark).pop().unwrap()
}

fn pids(strays: &[Stray]) -> BTreeSet<u32> {
    strays.iter().map(|stray| stray.pid).collect()
}

#[test]
fn what_a_killed_run_left_is_found_and_ended_in_whatever_group_or_session() {
    let place = Place::new();
    let script = "
        sh -c 'echo $$; exec sleep 1000 >&-' &
        setsid sh -c 'echo $$; exec sleep 1001 >&-' &
        (setsid sh -c 'sh -c \"echo \\$\\$; exec sleep 1002 >&-\" &') &";
    let left = strays(script, &mark(&place.socket(), OLD));
    // Who has started the last one is on its way out.
    let until = Instant::now() + LONG;
    while place.pids(Some(NEW)) != pids(&left) && Instant::now() < until {
        std::thread::yield_now();
    }
    assert_eq!((left.len(), place.pids(Some(NEW))), (3, pids(&left)));
    let found = find(&place.socket(), Some(NEW));
    assert!(found.iter().all(|leftover| leftover.run == OLD));
    let mut commands: Vec<_> = found.iter().map(|leftover| leftover.command.clone()).collect();
    commands.sort();
    assert_eq!(commands, ["sleep 1000", "sleep 1001", "sleep 1002"]);
    let ended = end_within(found, Haste::Ask, LONG);
    assert!(ended.iter().all(|ended| ended.end == End::Asked), "{ended:?}");
    assert!(!left.iter().any(Stray::lives));
    assert_eq!(place.pids(None), BTreeSet::new());
}

#[test]
fn another_app_and_the_current_run_are_left_alone() {
    let place = Place::new();
    let socket = place.socket();
    let other = place.0.path().join("mail.sock");
    let spared = [
        mark(&other, OLD),
        mark(&socket, NEW),
        mark(&socket, &NEW.to_ascii_uppercase()),
        mark(&place.0.path().join("shop.sock:1"), OLD),
        mark(&socket, "0011"),
        mark(&socket, "not-hexadecimal!"),
        mark(&socket, &format!("0{OLD}")),
        socket.clone().into_os_string(),
    ]
    .map(|mark| sleeper(&mark));
    let old = sleeper(&mark(&socket, OLD));
    assert_eq!(place.pids(Some(NEW)), BTreeSet::from([old.pid]));
    let ended = end(find(&socket, Some(NEW)), Haste::Now);
    assert_eq!((ended.len(), ended[0].pid, &ended[0].end), (1, old.pid, &End::Killed));
    assert!(!old.lives() && spared.iter().all(Stray::lives));
    assert_eq!(place.pids(None), pids(&spared[1..3]), "without a current run, every run is another");
}

#[test]
fn who_has_changed_its_environment_is_not_proved_and_left_alone() {
    let place = Place::new();
    let script = "env -i PATH=\"$PATH\" sh -c 'echo $$; exec sleep 1000 >&-' &";
    let left = strays(script, &mark(&place.socket(), OLD));
    assert_eq!((place.pids(None), left[0].lives()), (BTreeSet::new(), true));
}

#[test]
fn who_runs_as_another_user_is_left_alone() {
    if !getuid().is_root() {
        // Only root can make one.
        return;
    }
    let place = Place::new();
    let script = "setpriv --reuid=65534 sh -c 'echo $$; exec sleep 1000 >&-' &";
    let left = strays(script, &mark(&place.socket(), OLD));
    assert!(run_of(left[0].pid, &place.socket(), None).is_some(), "it can be read");
    assert_eq!((place.pids(None), left[0].lives()), (BTreeSet::new(), true));
}

#[test]
fn a_variable_that_is_there_twice_proves_nothing() {
    let socket = Path::new("/run/shop.sock");
    let one = |value: &str| format!("{VARIABLE}={value}\0");
    let (ours, other) = (one(&format!("/run/shop.sock:{OLD}")), one(&format!("/run/mail.sock:{OLD}")));
    let run = |environment: &str| proved(environment.as_bytes(), socket);
    assert_eq!(run(&format!("A=1\0{ours}B=2\0")).as_deref(), Some(OLD));
    assert_eq!(run(&format!("{ours}{other}")), None);
    assert_eq!(run(&format!("{other}{ours}")), None);
    assert_eq!((run(&format!("X{ours}")), run(""), run(&one("x"))), (None, None, None));
}

#[test]
fn neither_the_one_that_asks_nor_its_ancestors_are_found() {
    let place = Place::new();
    // Three generations, each waiting for the next.
    let script = "sh -c 'echo $$; sh -c \"echo \\$\\$; sh -c \\\"echo \\\\\\$\\\\\\$; exec sleep 1000 >&-\\\"; :\" ; :' &";
    let line = strays(script, &mark(&place.socket(), OLD));
    let [old, middle, young] = &line[..] else { panic!("{} generations", line.len()) };
    assert_eq!(place.pids(None), pids(&line));
    let spared = with_ancestors(middle.pid);
    assert!(spared.contains(&old.pid) && spared.contains(&middle.pid) && spared.contains(&1));
    let found = find_beside(&place.socket(), None, &spared);
    assert_eq!(found.iter().map(|one| one.pid).collect::<Vec<_>>(), [young.pid]);
    let me = with_ancestors(std::process::id());
    assert!(me.contains(&std::process::id()) && me.contains(&std::os::unix::process::parent_id()));
}

#[test]
fn who_ignores_term_is_killed_and_a_stopped_one_acts_on_it() {
    let place = Place::new();
    let script = "
        sh -c 'trap \"\" TERM; echo $$; exec sleep 1000 >&-' &
        sh -c 'echo $$; exec >&-; kill -STOP $$' &";
    let left = strays(script, &mark(&place.socket(), OLD));
    let (ignores, stopped): (Vec<_>, _) =
        find(&place.socket(), None).into_iter().partition(|leftover| leftover.command == "sleep 1000");
    let mut ended = end_within(stopped, Haste::Ask, LONG);
    ended.extend(end_within(ignores, Haste::Ask, Duration::from_millis(300)));
    let ends: Vec<_> = ended.iter().map(|ended| ended.end.clone()).collect();
    assert_eq!(ends, [End::Asked, End::Killed], "{ended:?}");
    assert!(!left.iter().any(Stray::lives));
    let said = ended[1].to_string();
    assert_eq!(said, format!("pid {} (`sleep 1000`) was killed", ended[1].pid));
}

#[test]
fn one_that_has_ended_meanwhile_is_not_signalled() {
    let place = Place::new();
    let left = sleeper(&mark(&place.socket(), OLD));
    let found = find(&place.socket(), None);
    pidfd::signal(left.pidfd.as_fd(), libc::SIGKILL).unwrap();
    poll(&mut [PollFd::new(&left.pidfd, PollFlags::IN)], None).unwrap();
    let ended = end(found, Haste::Ask);
    assert_eq!((ended.len(), &ended[0].end), (1, &End::Gone));
    assert_eq!(place.pids(None), BTreeSet::new(), "a zombie is nobody any more");
    assert_eq!(end(Vec::new(), Haste::Ask), []);
}

#[test]
fn a_command_is_shown_cut_and_cannot_move_the_cursor() {
    let place = Place::new();
    let long = "x".repeat(300);
    let script = format!("sh -c 'echo $$; exec >&-; kill -STOP $$' 'a\u{1b}[2J\u{202e}é' {long} &");
    let left = strays(&script, &mark(&place.socket(), OLD));
    let before = SystemTime::now();
    let found = find(&place.socket(), None);
    let shown = &found[0].command;
    assert!(shown.starts_with("sh -c echo $$; exec >&-; kill -STOP $$ a?[2J?é xxx"), "{shown}");
    assert!(shown.len() <= 200 && found[0].pid == left[0].pid);
    let age = before.duration_since(found[0].started.unwrap()).unwrap_or_default();
    assert!(age < Duration::from_secs(60), "{age:?}");
}
