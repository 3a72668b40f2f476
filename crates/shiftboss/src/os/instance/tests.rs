//! The promises of a claim.

use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Instant;

use super::super::notify::NotifySocket;
use super::*;
use crate::os::spawn::trial;

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("run/shop.sock");
    (folder, socket)
}

/// A socket file that nobody serves, not even a child that another test is just starting.
fn left_behind(path: &Path) {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o777
}

fn refused(socket: &Path) -> String {
    Instance::claim(socket).unwrap_err().to_string()
}

#[test]
fn an_app_is_claimed_once_at_a_time() {
    let (_folder, socket) = folder();
    let instance = Instance::claim(&socket).unwrap();
    let refused = Instance::claim(&socket).unwrap_err();
    let expected =
        format!("`shop` runs already (pid {}, up 0 s, socket {})", std::process::id(), socket.display());
    assert!(refused.to_string().starts_with(expected.split("up").next().unwrap()), "{refused}");
    assert!(matches!(refused, ClaimError::AlreadyRunning { up: Some(up), .. } if up.as_secs() < 60));
    let client = UnixStream::connect(&socket).unwrap();
    instance.listener().unwrap().accept().unwrap();
    drop((client, instance));
    Instance::claim(&socket).unwrap();
}

#[test]
fn only_our_user_reaches_the_socket_whatever_the_umask() {
    if trial::elsewhere(module_path!(), "only_our_user_reaches_the_socket_whatever_the_umask") {
        return;
    }
    for umask in [0o000, 0o027, 0o077] {
        let (_folder, socket) = folder();
        fs::create_dir(socket.parent().unwrap()).unwrap();
        rustix::process::umask(rustix::fs::Mode::from_bits_truncate(umask));
        let instance = Instance::claim(&socket).unwrap();
        rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o022));
        let lock = socket.with_file_name("shop.sock.lock");
        assert_eq!((mode(&socket), mode(&lock)), (0o600, 0o600), "{umask:o}");
        assert_eq!(mode(instance.runtime_dir()) & 0o077, 0, "{umask:o}");
    }
}

#[test]
fn a_missing_folder_is_made_for_us_alone() {
    let (_folder, socket) = folder();
    let _instance = Instance::claim(&socket).unwrap();
    assert_eq!(mode(socket.parent().unwrap()), 0o700);
}

#[test]
fn what_a_killed_run_left_is_replaced() {
    let (_folder, socket) = folder();
    let run = socket.with_file_name("shop.sock.d");
    DirBuilder::new().recursive(true).mode(0o700).create(&run).unwrap();
    left_behind(&socket);
    left_behind(&run.join(NEW));
    drop(UnixDatagram::bind(run.join("notify-1.sock")).unwrap());
    fs::write(socket.with_file_name("shop.sock.lock"), "1\n").unwrap();
    let instance = Instance::claim(&socket).unwrap();
    assert_eq!(fs::read_dir(instance.runtime_dir()).unwrap().count(), 0);
    assert!(UnixStream::connect(&socket).is_ok());
}

#[test]
fn a_socket_that_answers_is_never_taken_away() {
    let (_folder, socket) = folder();
    make_folder(socket.parent().unwrap()).unwrap();
    let stranger = UnixListener::bind(&socket).unwrap();
    assert_eq!(refused(&socket), format!("another program answers at {}", socket.display()));
    // Nor if it is frozen and its queue is full.
    listen(&stranger, 0).unwrap();
    let mut waiting = Vec::new();
    while let Ok(client) = connecting(&socket) {
        waiting.push(client);
    }
    assert!(matches!(Instance::claim(&socket), Err(ClaimError::Answered(_))));
}

fn connecting(socket: &Path) -> rustix::io::Result<std::os::fd::OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let client = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&client, &SocketAddrUnix::new(socket)?).map(|()| client)
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let (_folder, socket) = folder();
    make_folder(socket.parent().unwrap()).unwrap();
    fs::write(&socket, "precious").unwrap();
    assert!(refused(&socket).ends_with("something else is there"));
    assert_eq!(fs::read_to_string(&socket).unwrap(), "precious");
    assert!(matches!(Instance::claim(Path::new("/")), Err(ClaimError::NotASocket(_))));
}

#[test]
fn a_socket_of_another_kind_is_left_alone() {
    let (_folder, socket) = folder();
    make_folder(socket.parent().unwrap()).unwrap();
    let stranger = UnixDatagram::bind(&socket).unwrap();
    assert!(refused(&socket).starts_with("cannot see who serves"));
    let client = UnixDatagram::unbound().unwrap();
    client.send_to(b"still there", &socket).unwrap();
    assert_eq!(stranger.recv(&mut [0; 64]).unwrap(), 11);
}

#[test]
fn the_end_removes_what_is_ours_and_nothing_else() {
    let (_folder, socket) = folder();
    let instance = Instance::claim(&socket).unwrap();
    let run = instance.runtime_dir().to_owned();
    drop(UnixDatagram::bind(run.join("notify-9.sock")).unwrap());
    drop(instance);
    assert!(!socket.exists() && !run.exists());
    let instance = Instance::claim(&socket).unwrap();
    fs::remove_file(&socket).unwrap();
    let stranger = UnixListener::bind(&socket).unwrap();
    drop(instance);
    assert!(UnixStream::connect(&socket).is_ok());
    drop(stranger);
}

#[test]
fn a_successor_leaves_alone_what_is_somebody_elses_by_then() {
    let (_folder, socket) = folder();
    let instance = Instance::claim(&socket).unwrap();
    let heir = |file| {
        let (control, lock) = instance.descriptors();
        let control = Noted { socket: control.try_clone_to_owned().unwrap(), file };
        Instance::adopt(&socket, control, lock.try_clone_to_owned().unwrap()).unwrap()
    };
    fs::remove_file(&socket).unwrap();
    let stranger = UnixListener::bind(&socket).unwrap();
    drop(heir(instance.file()));
    assert!(UnixStream::connect(&socket).is_ok());
    // What is there is taken for its own by one that was not told.
    drop(heir(None));
    assert!(!socket.exists());
    drop(stranger);
}

#[test]
fn the_folder_under_the_temporary_one_must_be_ours_and_closed() {
    let folder = tempfile::tempdir().unwrap();
    let ours = temporary_folder(folder.path());
    let socket = ours.join("shop.sock");
    let claim = || Instance::claim_in(&socket, &ours, std::process::id());
    fs::create_dir(&ours).unwrap();
    fs::set_permissions(&ours, Permissions::from_mode(0o750)).unwrap();
    assert!(claim().unwrap_err().to_string().ends_with("must be ours and closed to others (`chmod 700`)"));
    fs::set_permissions(&ours, Permissions::from_mode(0o700)).unwrap();
    claim().unwrap();
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(&ours, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &ours).unwrap();
    assert!(matches!(claim(), Err(ClaimError::NotPrivate(_))));
}

#[test]
fn a_folder_for_the_run_that_others_may_use_is_refused() {
    let (_folder, socket) = folder();
    let run = socket.with_file_name("shop.sock.d");
    fs::create_dir_all(&run).unwrap();
    fs::set_permissions(&run, Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(Instance::claim(&socket), Err(ClaimError::NotPrivate(folder)) if folder == run));
}

#[test]
fn a_path_too_long_for_a_socket_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("x".repeat(90)).join("shop.sock");
    assert!(refused(&socket).starts_with("the path of the control socket is "));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let room = LONGEST_PATH
        - folder.path().as_os_str().len()
        - "//shop.sock.d/notify-18446744073709551615.sock".len();
    let longest = folder.path().join("x".repeat(room)).join("shop.sock");
    let instance = Instance::claim(&longest).unwrap();
    assert!(UnixStream::connect(&longest).is_ok());
    NotifySocket::bind(instance.runtime_dir(), u64::MAX).unwrap();
    let one_more = folder.path().join("x".repeat(room + 1)).join("shop.sock");
    assert!(refused(&one_more).starts_with("the path of the control socket is 1 bytes too long"));
}

#[test]
fn an_app_without_its_socket_can_still_be_found() {
    let (_folder, socket) = folder();
    assert_eq!(holder_of(&socket), None);
    let instance = Instance::claim(&socket).unwrap();
    fs::remove_file(&socket).unwrap();
    assert_eq!(holder_of(&socket), Some(std::process::id()));
    drop(instance);
    assert_eq!(holder_of(&socket), None);
}

#[test]
fn whoever_asks_whether_an_app_runs_keeps_none_from_starting() {
    let (_folder, socket) = folder();
    drop(Instance::claim(&socket).unwrap());
    let lock = File::open(socket.with_file_name(beside(socket.file_name().unwrap(), ".lock"))).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // A tenth of the time somebody asks; for how long at most.
        let asks = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let begun = Instant::now();
                if flock(&lock, FlockOperation::NonBlockingLockShared).is_ok() {
                    std::thread::sleep(Duration::from_micros(100));
                    flock(&lock, FlockOperation::Unlock).unwrap();
                    longest = longest.max(begun.elapsed());
                }
                std::thread::sleep(Duration::from_micros(900));
            }
            longest
        });
        let refused = (0..200).find_map(|_| Instance::claim(&socket).err());
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        let longest = asks.join().unwrap();
        assert!(refused.is_none() || longest > Duration::from_millis(40), "{refused:?}, {longest:?}");
    });
}

#[test]
fn every_user_has_a_place_for_sockets() {
    let temporary = Path::new("/tmp");
    let of = |root, runtime: Option<&str>| folder_of(root, runtime.map(OsString::from), temporary);
    assert_eq!(of(true, Some("/run/user/0")), Path::new("/run/shiftboss"));
    assert_eq!(of(false, Some("/run/user/7")), Path::new("/run/user/7/shiftboss"));
    let ours = temporary_folder(temporary);
    assert_eq!(
        [of(false, None), of(false, Some("")), of(false, Some("run"))],
        [&ours, &ours, &ours].map(PathBuf::clone)
    );
    assert!(default_socket("shop").ends_with("shop.sock"));
}

#[test]
fn sockets_are_listed_by_name_without_what_lies_beside_them() {
    let (_folder, shop) = folder();
    let mail = shop.with_file_name("mail.sock");
    let _apps = [Instance::claim(&shop).unwrap(), Instance::claim(&mail).unwrap()];
    fs::write(shop.with_file_name("file.sock"), "").unwrap();
    assert_eq!(sockets_in(shop.parent().unwrap()), [mail, shop]);
    assert_eq!(sockets_in(Path::new("/nonexistent")), Vec::<PathBuf>::new());
}
