//! The worker does what its flags say, seen from outside as a supervisor sees it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// A running worker, killed and reaped when dropped.
struct Worker {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Worker {
    fn start(flags: &str) -> Worker {
        Worker::of(command(flags))
    }

    fn of(mut command: Command) -> Worker {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Worker { child, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().into()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    fn rest(&mut self) -> String {
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail when it was already waited for, as they should.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(flags: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_test-worker"));
    command.args(flags.split_whitespace()).stdin(Stdio::null()).env_remove("TEST_WORKER_ARGS");
    command
}

/// A socket for readiness messages under an abstract name of its own, and that name for the environment.
fn notify_socket() -> (UnixDatagram, String) {
    let probe = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("test-worker-{}-{}", std::process::id(), probe.local_addr().unwrap().port());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (socket, format!("@{name}"))
}

fn message(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 64];
    let size = socket.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..size]).into()
}

#[test]
fn without_flags_it_sleeps_until_term_and_exits_well() {
    let mut worker = Worker::start("--first-line");
    let line = worker.line();
    let words: Vec<_> = line.split(' ').collect();
    assert_eq!((words[0], words[1]), ("ready", worker.child.id().to_string().as_str()));
    assert!(words[2].parse::<u64>().unwrap() > 0);
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait().code(), Some(0));
}

#[test]
fn its_first_line_goes_to_the_file_asked_for() {
    let file = std::env::temp_dir().join(format!("test-worker-first-line-{}", std::process::id()));
    let mut worker = Worker::start(&format!("--first-line-to {} --print 1", file.display()));
    assert_eq!(worker.line(), "line 1");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with(&format!("ready {} ", worker.child.id())), "{text}");
    std::fs::remove_file(file).unwrap();
}

#[test]
fn it_exits_with_the_code_or_by_the_signal_asked_for() {
    assert_eq!(Worker::start("--exit 7").wait().code(), Some(7));
    assert_eq!(Worker::start("--exit 7 --exit-after 20").wait().code(), Some(7));
    for signal in [9, 15, 10] {
        assert_eq!(Worker::start(&format!("--signal-self {signal}")).wait().signal(), Some(signal));
    }
}

#[test]
fn flags_come_from_the_environment_too() {
    let mut command = command("--exit-after 1");
    command.env("TEST_WORKER_ARGS", "--exit 9 --print 2");
    let mut worker = Worker::of(command);
    assert_eq!(worker.rest(), "line 1\nline 2\n");
    assert_eq!(worker.wait().code(), Some(9));
}

#[test]
fn it_says_ready_after_the_wait_asked_for() {
    let (socket, name) = notify_socket();
    let mut command = command("--ready-after 50");
    command.env("NOTIFY_SOCKET", name);
    let begun = std::time::Instant::now();
    let _worker = Worker::of(command);
    assert_eq!(message(&socket), "READY=1");
    assert!(begun.elapsed() >= Duration::from_millis(50));
}

#[test]
fn term_is_ignored_when_asked() {
    let mut worker = Worker::start("--ignore-term --first-line --exit-after 300 --exit 4");
    worker.line();
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait().code(), Some(4));
}

#[test]
fn its_exit_on_term_is_delayed_when_asked() {
    let mut worker = Worker::start("--first-line --stop-delay 80");
    worker.line();
    let begun = std::time::Instant::now();
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait().code(), Some(0));
    assert!(begun.elapsed() >= Duration::from_millis(80));
}

/// From `/proc`, since `getsid` answers 0, which is no pid, for a session from outside of a container.
fn session(pid: Pid) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    after_name.split(' ').nth(3).unwrap().to_owned()
}

#[test]
fn it_leaves_children_in_its_group_or_in_a_session_of_their_own() {
    let mut worker = Worker::start("--fork-child --setsid-child --exit 0");
    let children = [worker.line(), worker.line()];
    assert_eq!(worker.wait().code(), Some(0));
    let pids =
        children.map(|line| Pid::from_raw(line.strip_prefix("child ").unwrap().parse().unwrap()).unwrap());
    let [in_ours, in_its_own] = pids.map(session);
    pids.iter().for_each(|pid| kill_process(*pid, Signal::KILL).unwrap());
    assert_eq!(in_ours, session(rustix::process::getpid()));
    assert_eq!(in_its_own, pids[1].to_string());
    // The end of its output says that both have gone, since they held it.
    assert_eq!(worker.rest(), "");
}

#[test]
fn output_comes_in_the_amount_asked_for() {
    assert_eq!(Worker::start("--print-bytes 100000 --exit 0").rest().len(), 100_000);
    let mut worker = Worker::start("--flood-output");
    let mut flood = vec![0; 1 << 20];
    worker.output.read_exact(&mut flood).unwrap();
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait().code(), Some(0));
}

#[test]
fn a_flood_that_nobody_reads_still_ends_at_term() {
    let (socket, name) = notify_socket();
    let mut command = command("--ready notify --flood-output");
    command.env("NOTIFY_SOCKET", name);
    let mut worker = Worker::of(command);
    message(&socket);
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait().code(), Some(0));
}

#[test]
fn closed_output_is_seen_while_it_runs() {
    let mut worker = Worker::start("--close-stdout");
    assert_eq!(worker.rest(), "");
    assert!(worker.child.try_wait().unwrap().is_none());
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait().code(), Some(0));
}

#[test]
fn files_are_touched_and_required() {
    let folder = std::env::temp_dir().join(format!("test-worker-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("flag");
    let path = file.display();
    let missing = command(&format!("--require-file {path}")).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&missing.stderr), format!("Error: {path} is missing\n"));
    assert_eq!(Worker::start(&format!("--touch {path} --exit 0")).wait().code(), Some(0));
    assert_eq!(Worker::start(&format!("--require-file {path} --exit 0")).wait().code(), Some(0));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn it_tells_its_environment_descriptors_and_signals() {
    let mut asked = command("--env --exit 0");
    asked.env_clear().envs([("B", "2"), ("A", "1")]);
    assert_eq!(Worker::of(asked).rest(), "A=1\nB=2\n");
    let descriptors = Worker::start("--fds --exit 0").rest();
    let numbers: Vec<_> = descriptors.lines().map(|line| line.split_once(' ').unwrap().0).collect();
    assert!(numbers.starts_with(&["0", "1", "2"]), "{descriptors}");
    assert!(descriptors.starts_with("0 /dev/null\n1 pipe:["), "{descriptors}");
    let signals = Worker::start("--sigmask --exit 0").rest();
    assert!(signals.starts_with("SigBlk: 0000000000000000\n"), "{signals}");
}

#[test]
fn accepted_connections_are_finished_and_no_more_accepted_after_term() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (socket, name) = notify_socket();
    let mut worker = Worker::of(activated(&listener, &name, "--http --ready notify --first-line"));
    let pid = worker.line().split(' ').nth(1).unwrap().to_owned();
    message(&socket);
    let (mut first, mut half) = (TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap());
    half.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    // The connection made last is accepted last, so that its answer says that the others were accepted.
    let mut last = TcpStream::connect(address).unwrap();
    assert!(ask(&mut last).ends_with(&format!("\r\n\r\nok {pid}\n")));
    worker.signal(Signal::TERM);
    first.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    half.write_all(b"\r\n").unwrap();
    assert!(read(&mut half).contains("200 OK"));
    assert!(ask_rest(&mut first).contains("200 OK"));
    assert_eq!(worker.wait().code(), Some(0));
    // Still in the shared queue: somebody else's to accept.
    let queued = TcpStream::connect(address).unwrap();
    listener.set_nonblocking(false).unwrap();
    assert_eq!(listener.accept().unwrap().1, queued.local_addr().unwrap());
}

/// A worker that is given `listener` as its descriptor 3. A shell moves it there and says its own pid.
fn activated(listener: &TcpListener, notify: &str, flags: &str) -> Command {
    let worker = env!("CARGO_BIN_EXE_test-worker");
    let line = format!("exec 3<&0 </dev/null; export LISTEN_PID=$$; exec {worker} {flags}");
    let mut command = Command::new("sh");
    command.args(["-c", &line]).env("LISTEN_FDS", "1").env("NOTIFY_SOCKET", notify);
    command.stdin(OwnedFd::from(listener.try_clone().unwrap()));
    command
}

fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    ask_rest(stream)
}

fn ask_rest(stream: &mut TcpStream) -> String {
    stream.write_all(b"\r\n").unwrap();
    read(stream)
}

fn read(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}
