use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::{Domain, SockAddr};

use super::bind::{at, in_use};
use super::*;

fn tcp(text: &str) -> Listener {
    Listener::bind(&text.parse().unwrap(), false).unwrap()
}

fn port(listener: &Listener) -> u16 {
    match listener.address() {
        Address::Tcp(host) | Address::Udp(host) => host.port(),
        Address::Unix(_) => 0,
    }
}

/// Starts to connect and does not wait.
fn connecting(to: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    let error = socket.connect(&to.into()).map_err(|error| error.raw_os_error());
    assert!(matches!(error, Ok(()) | Err(Some(libc::EINPROGRESS))), "{error:?}");
    socket
}

fn is_connected(socket: &Socket, within: Duration) -> bool {
    let mut fds = [PollFd::new(socket, PollFlags::OUT)];
    let wait = Timespec::try_from(within).unwrap();
    poll(&mut fds, Some(&wait)).unwrap() == 1
        && socket.take_error().unwrap().is_none()
        && socket.peer_addr().is_ok()
}

fn accept(listener: &Listener) -> TcpStream {
    listener.socket.accept().unwrap().0.into()
}

const SOON: Duration = Duration::from_secs(5);
const A_MOMENT: Duration = Duration::from_millis(300);

#[test]
fn one_socket_serves_both_families() {
    let listener = tcp("tcp://:0");
    let port = port(&listener);
    assert_eq!(listener.address().to_string(), format!("tcp://:{port}"));
    let v4 = TcpStream::connect(("127.0.0.1", port)).unwrap();
    accept(&listener);
    if let Ok(v6) = TcpStream::connect(("::1", port)) {
        accept(&listener);
        drop(v6);
    }
    drop(v4);
}

#[test]
fn a_quiet_listener_keeps_new_clients_waiting_and_lets_those_inside_in() {
    for (text, host) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), (":0", "127.0.0.1"), (":0", "::1")]
    {
        let mut listener = match Listener::bind(&text.parse().unwrap(), false) {
            Err(BindError::NotAvailable { .. } | BindError::Other { .. }) if host == "::1" => continue,
            bound => bound.unwrap(),
        };
        let to = SocketAddr::new(host.parse().unwrap(), port(&listener));
        let mut inside = TcpStream::connect(to).unwrap();
        listener.refuse_new().unwrap();
        listener.refuse_new().unwrap();
        let outside = connecting(to);
        assert!(!is_connected(&outside, A_MOMENT), "{text}: let in while quiet");
        assert_eq!(listener.queued().unwrap(), 1);
        inside.write_all(b"x").unwrap();
        let mut byte = [0];
        accept(&listener).read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"x");
        listener.reopen().unwrap();
        assert!(is_connected(&outside, SOON), "{text}: not let in after the reopening");
    }
}

#[test]
fn a_shut_listener_counts_and_resets_what_waits_then_refuses_and_keeps_its_port() {
    let mut listener = tcp("127.0.0.1:0");
    let to = SocketAddr::from(([127, 0, 0, 1], port(&listener)));
    let waiting: Vec<_> = (0..3).map(|_| TcpStream::connect(to).unwrap()).collect();
    assert_eq!(listener.shut().unwrap(), 3);
    assert_eq!(listener.shut().unwrap(), 0, "a second time there is nothing left");
    for mut client in waiting {
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
    assert_eq!(TcpStream::connect(to).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    let stranger = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    stranger.set_reuse_address(true).unwrap();
    let stolen = stranger.bind(&to.into()).and_then(|()| stranger.listen(1));
    assert!(in_use(&stolen.unwrap_err()));
    drop(stranger);
    listener.reopen().unwrap();
    let client = TcpStream::connect(to).unwrap();
    accept(&listener);
    drop(client);
}

#[test]
fn a_port_can_be_bound_again_while_old_connections_linger() {
    let listener = tcp("127.0.0.1:0");
    let address = listener.address().clone();
    let client = TcpStream::connect(("127.0.0.1", port(&listener))).unwrap();
    // Closed by the server first: its end stays in TIME_WAIT.
    drop(accept(&listener));
    drop(listener);
    drop(client);
    Listener::bind(&address, false).unwrap();
}

#[test]
fn a_queue_shortened_and_a_socket_shut_by_a_worker_are_mended() {
    let mut listener = tcp("127.0.0.1:0");
    let to = ("127.0.0.1", port(&listener));
    listener.socket.listen(1).unwrap();
    listener.assert_backlog().unwrap();
    let clients: Vec<_> = (0..20).map(|_| TcpStream::connect(to).unwrap()).collect();
    assert_eq!(listener.queued().unwrap(), 20);
    drop(clients);
    listener.socket.shutdown(std::net::Shutdown::Both).unwrap();
    assert!(TcpStream::connect(to).is_err());
    listener.assert_backlog().unwrap();
    TcpStream::connect(to).unwrap();
}

#[test]
fn a_listener_that_a_worker_has_shut_is_shut() {
    let mut listener = tcp("127.0.0.1:0");
    listener.socket.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(listener.shut().unwrap(), 0);
    listener.assert_backlog().unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port(&listener))).is_err());
    listener.reopen().unwrap();
    TcpStream::connect(("127.0.0.1", port(&listener))).unwrap();
}

#[test]
fn a_taken_port_names_its_holder() {
    let first = tcp("127.0.0.1:0");
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let error = Listener::bind(first.address(), false).unwrap_err();
        let text = error.to_string();
        assert!(!error.is_temporary() && text.contains("in use"), "{text}");
        // The search for it may end before it has come to all processes.
        if text.contains(&format!("pid {}", std::process::id())) {
            return;
        }
        assert!(Instant::now() < until, "{text}");
    }
}

#[test]
fn an_address_of_another_host_may_come_later() {
    let error = Listener::bind(&"192.0.2.1:4000".parse().unwrap(), false).unwrap_err();
    assert!(error.is_temporary(), "{error}");
}

#[test]
fn a_privileged_port_says_what_it_needs() {
    let error = explain(&"127.0.0.1:80".parse().unwrap(), io::ErrorKind::PermissionDenied.into());
    // Without a number from the kernel it is any error; with it, the reason.
    assert!(matches!(error, BindError::Other { .. }), "{error}");
    let error = explain(&"127.0.0.1:80".parse().unwrap(), io::Error::from_raw_os_error(libc::EACCES));
    assert!(error.to_string().contains("CAP_NET_BIND_SERVICE"), "{error}");
}

#[test]
fn datagrams_are_dropped_while_quiet_or_shut() {
    let mut listener = tcp("udp://127.0.0.1:0");
    let to = ("127.0.0.1", port(&listener));
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let arrives = |listener: &Listener, within: Duration| {
        client.send_to(b"x", to).unwrap();
        let mut fds = [PollFd::new(&listener.socket, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::try_from(within).unwrap())).unwrap() == 1
    };
    listener.refuse_new().unwrap();
    assert!(!arrives(&listener, A_MOMENT));
    listener.shut().unwrap();
    assert!(!arrives(&listener, A_MOMENT));
    listener.reopen().unwrap();
    assert!(arrives(&listener, SOON));
}

#[test]
fn a_stale_path_is_replaced_only_if_nobody_answers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let address = Address::Unix(path.clone());
    let other = UnixListener::bind(&path).unwrap();
    let error = Listener::bind(&address, false).unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }), "{error}");
    drop(other);
    let listener = Listener::bind(&address, false).unwrap();
    UnixStream::connect(&path).unwrap();
    drop(listener);
    assert!(!path.exists(), "its file goes with it");
    fs::write(&path, "precious").unwrap();
    let error = Listener::bind(&address, false).unwrap_err();
    assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn a_shut_path_is_away_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let mut listener = Listener::bind(&Address::Unix(path.clone()), false).unwrap();
    listener.refuse_new().unwrap();
    listener.shut().unwrap();
    listener.shut().unwrap();
    assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    listener.reopen().unwrap();
    UnixStream::connect(&path).unwrap();
    listener.shut().unwrap();
    drop(listener);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_path_whose_owner_is_frozen_is_taken_and_nobody_waits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let frozen = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    frozen.bind(&SockAddr::unix(&path).unwrap()).unwrap();
    frozen.listen(0).unwrap();
    let _waiting = UnixStream::connect(&path).unwrap();
    assert!(matches!(Listener::bind(&Address::Unix(path), false), Err(BindError::InUse { .. })));
}

#[test]
fn a_path_may_be_longer_than_an_address() {
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("x".repeat(80)).join("y".repeat(80));
    fs::create_dir_all(&long).unwrap();
    let path = long.join("s");
    let listener = Listener::bind(&Address::Unix(path.clone()), false).unwrap();
    at(&path, |at| Socket::new(Domain::UNIX, Type::STREAM, None)?.connect(at)).unwrap();
    assert!(matches!(Listener::bind(&Address::Unix(path.clone()), false), Err(BindError::InUse { .. })));
    drop(listener);
    assert!(!path.exists());
    // The name alone has no room in one.
    let path = long.join("z".repeat(100));
    let refused = Listener::bind(&Address::Unix(path), false).unwrap_err();
    let BindError::Other { source, .. } = refused else { panic!("{refused}") };
    assert_eq!(Errno::from_io_error(&source), Some(Errno::NAMETOOLONG));
}

fn mend(listener: &mut Listener) -> Result<bool, BindError> {
    listener.mend(true, 0o222, |_, _| Ok(())).map(|before| before.is_some())
}

#[test]
fn a_path_at_which_no_client_could_come_is_bound_anew() {
    type Harm = fn(&Listener, &Path);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let mut listener = Listener::bind(&Address::Unix(path.clone()), false).unwrap();
    let removed: Harm = |_, path| fs::remove_file(path).unwrap();
    let is_shut: Harm = |listener, _| listener.socket.shutdown(std::net::Shutdown::Both).unwrap();
    let reads_no_more: Harm = |listener, _| listener.socket.shutdown(std::net::Shutdown::Read).unwrap();
    for harm in [removed, is_shut, reads_no_more] {
        for while_shut in [false, true] {
            assert!(!mend(&mut listener).unwrap());
            let at = if while_shut { away(&path) } else { path.clone() };
            if while_shut {
                listener.shut().unwrap();
            }
            harm(&listener, &at);
            let held = std::cell::Cell::new(false);
            let hold = |_: BorrowedFd<'_>, file: Option<FileId>| {
                held.set(if path.exists() {
                    held.get() && file == FileId::at(&path).ok()
                } else {
                    file.is_none()
                });
                Ok(())
            };
            assert!(listener.mend(true, 0o222, hold).unwrap().is_some() && held.get());
            listener.reopen().unwrap();
            UnixStream::connect(&path).unwrap();
            listener.accept().unwrap();
            assert!(listener.socket.nonblocking().unwrap() && !away(&path).exists());
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o222, 0o222);
        }
    }
}

/// A listener, and who has its path since it was shut or removed.
fn taken_by_a_stranger(path: &Path, while_shut: bool) -> (Listener, UnixListener) {
    let mut listener = Listener::bind(&Address::Unix(path.to_owned()), false).unwrap();
    if while_shut {
        listener.shut().unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
    (listener, UnixListener::bind(path).unwrap())
}

#[test]
fn a_path_that_is_somebody_elses_by_now_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    for while_shut in [false, true] {
        let (mut listener, stranger) = taken_by_a_stranger(&path, while_shut);
        assert!(matches!(mend(&mut listener), Err(BindError::InUse { .. })));
        listener.shut().unwrap();
        UnixStream::connect(&path).unwrap();
        drop(stranger);
        assert!(mend(&mut listener).is_ok());
        listener.reopen().unwrap();
        UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();
    }
}

#[test]
fn what_waits_at_a_path_is_turned_away_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let mut listener = Listener::bind(&Address::Unix(path.clone()), false).unwrap();
    let waiting: Vec<_> = (0..3).map(|_| UnixStream::connect(&path).unwrap()).collect();
    listener.refuse_new().unwrap();
    assert_eq!((listener.shut().unwrap(), listener.shut().unwrap()), (3, 0));
    for mut client in waiting {
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
    assert!(!listener.socket.nonblocking().unwrap(), "as the workers have it");
    // Also if its path is gone.
    listener.reopen().unwrap();
    let _client = UnixStream::connect(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(listener.shut().unwrap(), 1);
}

fn heir_of(listener: &Listener, file: Option<FileId>) -> Listener {
    let socket = listener.as_fd().try_clone_to_owned().unwrap();
    Listener::adopt(Noted { socket, file }, listener.address()).unwrap()
}

#[test]
fn a_successor_takes_nobody_elses_path_for_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    for while_shut in [false, true] {
        let (listener, stranger) = taken_by_a_stranger(&path, while_shut);
        let mut heir = heir_of(&listener, listener.file());
        assert_eq!(heir.is_to_listen(), !while_shut);
        heir.shut().unwrap();
        assert!(matches!(mend(&mut heir), Err(BindError::InUse { .. })));
        drop((heir, listener));
        UnixStream::connect(&path).unwrap();
        drop(stranger);
        fs::remove_file(&path).unwrap();
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "its own is gone");
}

/// An older version noted nothing, and one that was killed in the midst of it had not yet.
#[test]
fn a_successor_that_was_told_of_no_file_takes_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let mut listener = Listener::bind(&Address::Unix(path.clone()), false).unwrap();
    let heir = heir_of(&listener, None);
    assert_eq!((heir.file, heir.state), (listener.file, State::Open));
    std::mem::forget(heir);
    listener.shut().unwrap();
    let heir = heir_of(&listener, None);
    assert_eq!((heir.file, heir.state), (listener.file, State::Shut));
    drop((heir, listener));
    let _stranger = UnixListener::bind(&path).unwrap();
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap().into();
    let unbound = Listener::adopt(Noted { socket, file: None }, &Address::Unix(path)).unwrap();
    assert_eq!(unbound.file, None, "it was never there");
}

#[test]
fn whoever_waits_at_a_path_that_was_only_renamed_is_turned_away_by_a_successor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let address = Address::Unix(path.clone());
    let listener = Listener::bind(&address, false).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    fs::rename(&path, away(&path)).unwrap();
    let mut heir = heir_of(&listener, listener.file());
    assert!(!heir.is_to_listen());
    assert_eq!((heir.shut().unwrap(), heir.shut().unwrap()), (1, 0));
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}
