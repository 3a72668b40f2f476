//! The built-in worker: a small HTTP/1.1 server on the sockets it is given, which loses no request when told to leave.
//!
//! It takes its sockets from `LISTEN_FDS` (sd_listen_fds(3)) and says `READY=1` to `NOTIFY_SOCKET` (sd_notify(3)). On
//! SIGTERM it stops accepting at once and finishes what it has accepted: a request being received or answered to its
//! end, a new connection's first request, a kept connection's next request (answered with `Connection: close`). A
//! connection on which nothing comes for 5 s is closed; with the last one gone it exits 0. A second
//! SIGTERM ends it at once, with 1.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | `worker ID generation G` |
//! | `GET /slow?ms=N` | the same, N ms later (at most a minute) |
//! | `POST` any path | the length of the body |
//!
//! `DEMO_VERSION_FILE` names a file whose word decides how it behaves: `good`, `broken` (exits 1 before it is ready)
//! or `crash` (exits 3 shortly after it is ready).

mod connection;

use std::convert::Infallible;
use std::env;
use std::io;
use std::net::TcpListener as StdListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use shiftboss::os::activation;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;

use self::connection::Connection;
use crate::exit::last_word;

/// Runs the worker until it is told to leave. What goes wrong is said on standard error and ends it with 1.
pub(crate) fn run() -> ExitCode {
    let ran = tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| {
        let version = Version::of_environment()?;
        runtime.block_on(LocalSet::new().run_until(serve(version)))
    });
    ran.unwrap_or_else(|error| {
        last_word(&format!("Error: {error}"));
        ExitCode::FAILURE
    })
}

/// How this worker behaves, as the demo asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Good,
    /// Ready, and gone shortly afterwards.
    Crash,
}

impl Version {
    fn of_environment() -> io::Result<Version> {
        let Some(path) = env::var_os("DEMO_VERSION_FILE") else { return Ok(Version::Good) };
        let word = std::fs::read_to_string(&path)
            .map_err(|error| io::Error::other(format!("cannot load version: {}: {error}", path.display())))?;
        Version::named(word.trim()).map_err(io::Error::other)
    }

    fn named(word: &str) -> Result<Version, String> {
        match word {
            "good" => Ok(Version::Good),
            "crash" => Ok(Version::Crash),
            "broken" => Err("cannot load version".into()),
            other => Err(format!("cannot load version: `{other}` is not good, broken or crash")),
        }
    }
}

async fn serve(version: Version) -> io::Result<ExitCode> {
    let mut terminations = signal(SignalKind::terminate())?;
    let listeners = inherited_listeners()?;
    let (leave, leaving) = watch::channel(false);
    let (busy, all_done) = mpsc::channel::<Infallible>(1);
    let greeting: Rc<str> = greeting().into();
    for listener in listeners {
        spawn_local(accept(listener, leaving.clone(), busy.clone(), Rc::clone(&greeting)));
    }
    drop((leaving, busy));
    notify("READY=1")?;
    if version == Version::Crash {
        sleep(CRASH_AFTER).await;
        last_word("Error: crashed");
        return Ok(ExitCode::from(3));
    }
    Ok(finish(&mut terminations, leave, all_done).await)
}

/// Waits to be told to leave, then for the last connection to end or to be told again.
async fn finish(
    terminations: &mut Signal,
    leave: watch::Sender<bool>,
    mut all_done: mpsc::Receiver<Infallible>,
) -> ExitCode {
    terminations.recv().await;
    leave.send_replace(true);
    tokio::select! {
        _ = all_done.recv() => ExitCode::SUCCESS,
        _ = terminations.recv() => ExitCode::FAILURE,
    }
}

/// Accepts until told to leave. The listener is then only let go of: it is shared with other workers, which go on.
async fn accept(
    listener: TcpListener,
    mut leaving: watch::Receiver<bool>,
    busy: mpsc::Sender<Infallible>,
    greeting: Rc<str>,
) {
    let connections = leaving.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            () = told(&mut leaving) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = Connection::new(stream, connections.clone(), Rc::clone(&greeting));
                let busy = busy.clone();
                spawn_local(async move {
                    // A connection that fails concerns its client only, who sees it too.
                    let _ = connection.serve().await;
                    drop(busy);
                });
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Resolves once the worker is told to leave.
async fn told(leaving: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is leaving as well.
    let _ = leaving.wait_for(|leaving| *leaving).await;
}

fn greeting() -> String {
    let named = |name: &str| env::var(name).unwrap_or_else(|_| "-".into());
    format!("worker {} generation {}\n", named("SHIFTBOSS_WORKER_ID"), named("SHIFTBOSS_GENERATION"))
}

/// The listeners passed to this process, at least one.
fn inherited_listeners() -> io::Result<Vec<TcpListener>> {
    let sockets = activation::inherited().map_err(io::Error::other)?;
    if sockets.is_empty() {
        return Err(io::Error::other("no sockets were passed to this process in LISTEN_FDS and LISTEN_PID"));
    }
    let adopt = |(_, socket)| {
        let listener = StdListener::from(socket);
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    sockets.into_iter().map(adopt).collect()
}

/// Sends a state to the supervisor, if one asked to be told: to a path, or to an abstract name after `@`.
fn notify(state: &str) -> io::Result<()> {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match socket.as_encoded_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(&socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

/// From ready to the end of a version that crashes.
const CRASH_AFTER: Duration = Duration::from_millis(50);
/// After a failed accept (descriptors used up), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_word_decides_how_the_worker_behaves() {
        assert_eq!(Version::named("good"), Ok(Version::Good));
        assert_eq!(Version::named("crash"), Ok(Version::Crash));
        assert_eq!(Version::named("broken"), Err("cannot load version".into()));
        assert!(Version::named("gud").is_err());
    }
}
