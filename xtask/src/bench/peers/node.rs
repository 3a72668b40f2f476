//! Managers of Node's HTTP servers.

use std::process::Command;

use anyhow::Result;
use rustix::process::Signal;

use super::Peers;
use super::plan::{Act, Peer, Place, Plan, Worker, command, shown};
use super::small::{bare, pm2, shiftboss};
use super::table::BARE;
use crate::workspace::root;

pub(super) fn peers() -> Vec<Peer> {
    let node = |name, plan| Peer::new(name, Worker::Node, plan);
    vec![
        // Each has a port of its own, which only the load would mind.
        node(BARE, |peers, place| {
            is_there(peers)?;
            // It finds no program by itself.
            let words = ["/usr/bin/env".into(), "node".into(), program("server.js")];
            let mut plan = bare(peers, place, &words);
            plan.command.env("PORT", "0");
            Ok(plan)
        })
        .spins(),
        node("shiftboss, plain server on the listener", |peers, place| {
            is_there(peers)?;
            let settings =
                format!("kind = \"plain\"\nlisten = [\"tcp://127.0.0.1:{}\"]\n{SURGE}", place.port);
            shiftboss(peers, place, &["node".into(), program("server.js")], &settings)
        })
        .reloads(),
        node("shiftboss, cluster program unmodified", |peers, place| {
            is_there(peers)?;
            peers.installed.kind_node.clone().map_err(anyhow::Error::msg)?;
            let settings = format!("kind = \"node\"\nenvironment = {{ PORT = \"{}\" }}\n{SURGE}", place.port);
            shiftboss(peers, place, &["node".into(), program("server.js")], &settings)
        })
        .reloads(),
        node("Node's cluster", |peers, place| cluster(peers, place, "cluster.js")).spins().reloads(),
        node("PM2, cluster mode", |peers, place| {
            let app = serde_json::json!({
                "name": "web", "script": program("server.js"), "exec_mode": "cluster",
                "instances": place.workers,
            });
            pm2(peers, place, &app)
        })
        .reloads(),
        node("okanjo-app-broker", |peers, place| cluster(peers, place, "okanjo.js")).spins().reloads(),
    ]
}

fn cluster(peers: &Peers, place: &Place, name: &str) -> Result<Plan> {
    is_there(peers)?;
    let mut primary = command("node", [program(name)]);
    primary.env("PORT", place.port.to_string());
    if name == "okanjo.js" {
        modules(peers, &mut primary)?;
    }
    Ok(Plan::new(primary).reload(Act::Signal(Signal::USR2)))
}

/// Where its packages are found.
pub(super) fn modules(peers: &Peers, command: &mut Command) -> Result<()> {
    let npm = peers.installed.npm.clone().map_err(anyhow::Error::msg)?;
    command.env("NODE_PATH", npm.join("node_modules"));
    Ok(())
}

pub(super) fn is_there(peers: &Peers) -> Result<()> {
    peers.installed.node.clone().map_err(anyhow::Error::msg)
}

/// Of those in the folder of the bench.
pub(super) fn program(name: &str) -> String {
    shown(&root().join("xtask/bench/peers").join(name))
}

/// All at once, as most of the others do; its default is one after the other.
pub(super) const SURGE: &str = "recycle = { surge = 4 }";
