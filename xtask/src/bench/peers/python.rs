//! gunicorn, under itself and under others.

use std::path::PathBuf;

use anyhow::Result;
use rustix::process::Signal;

use super::Peers;
use super::node::{SURGE, program};
use super::plan::{Act, Peer, Place, Plan, Worker, command, shown};
use super::small::{bare, circus, runit, s6, shiftboss, supervisord};
use super::table::BARE;
use crate::workspace::root;

pub(super) fn peers() -> Vec<Peer> {
    let python = |name, plan| Peer::new(name, Worker::Python, plan);
    vec![
        python(BARE, |peers, place| {
            let mut plan = bare(peers, place, &one(peers, &["--bind=127.0.0.1:0"])?);
            of_parent(&mut plan);
            Ok(plan)
        }),
        python("shiftboss with gunicorn", |peers, place| {
            let settings =
                format!("kind = \"notify\"\nlisten = [\"tcp://127.0.0.1:{}\"]\n{SURGE}", place.port);
            let mut plan = shiftboss(peers, place, &one(peers, &["--preload"])?, &settings)?;
            of_parent(&mut plan);
            Ok(plan)
        })
        .reloads(),
        python("gunicorn's own master", |peers, place| {
            let workers = format!("--workers={}", place.workers);
            let bind = format!("--bind=127.0.0.1:{}", place.port);
            let words = gunicorn(peers, &[&workers, &bind])?;
            Ok(Plan::new(command(&words[0], &words[1..])).reload(Act::Signal(Signal::HUP)))
        })
        .spins()
        .reloads(),
        python("circus with gunicorn", |peers, place| {
            let socket =
                format!("use_sockets = True\n[socket:web]\nhost = 127.0.0.1\nport = {}\n", place.port);
            let mut plan =
                circus(peers, place, &one(peers, &["--bind=fd://$(circus.sockets.web)"])?, &socket)?;
            of_parent(&mut plan);
            Ok(plan)
        })
        .reloads(),
        python("supervisord with gunicorn", |peers, place| serve_with(peers, place, supervisord))
            .only_serves(),
        python("s6 with gunicorn", |peers, place| serve_with(peers, place, s6)).only_serves(),
        python("runit with gunicorn", |peers, place| serve_with(peers, place, runit)).only_serves(),
    ]
}

/// Who gives no socket: each gunicorn binds the port itself, beside the others.
fn serve_with(
    peers: &Peers,
    place: &Place,
    manager: fn(&Peers, &Place, &[String]) -> Result<Plan>,
) -> Result<Plan> {
    let bind = format!("--bind=127.0.0.1:{}", place.port);
    let mut plan = manager(peers, place, &one(peers, &["--reuse-port", &bind])?)?;
    of_parent(&mut plan);
    Ok(plan)
}

/// A gunicorn with one worker, which is one worker of whatever manages it.
fn one(peers: &Peers, words: &[&str]) -> Result<Vec<String>> {
    gunicorn(peers, &[&["--workers=1"], words].concat())
}

fn gunicorn(peers: &Peers, words: &[&str]) -> Result<Vec<String>> {
    let venv: PathBuf = peers.installed.venv.clone().map_err(anyhow::Error::msg)?;
    let mut command = vec![shown(&venv.join("bin/gunicorn"))];
    // Threads, since a worker of its default kind serves one request at a time and keeps no connection.
    command.extend(["--worker-class=gthread", "--threads=64", "--no-control-socket"].map(str::to_owned));
    command.push(format!("--config={}", program("gunicorn.conf.py")));
    command.push(format!("--chdir={}", shown(&root().join("xtask/bench"))));
    command.extend(words.iter().map(|word| (*word).to_owned()));
    command.push("app:app".to_owned());
    Ok(command)
}

fn of_parent(plan: &mut Plan) {
    plan.command.env("FIRST_LINE_OF", "parent");
}
