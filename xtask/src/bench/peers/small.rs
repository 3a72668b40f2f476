//! Managers of any program, with the smallest worker.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use rustix::process::Signal;

use super::Peers;
use super::plan::{Act, Peer, Place, Plan, Worker, command, shown};
use super::table::BARE;

pub(super) fn peers() -> Vec<Peer> {
    let small = |name, plan| Peer::new(name, Worker::Small, plan);
    vec![
        small(BARE, |peers, place| Ok(bare(peers, place, &place.test_worker(peers)))).spins(),
        small("shiftboss", |peers, place| {
            let settings = "kind = \"plain\"\nready = { after = \"0s\" }";
            shiftboss(peers, place, &place.test_worker(peers), settings)
        }),
        small("supervisord", |peers, place| supervisord(peers, place, &place.test_worker(peers))),
        small("circus", |peers, place| circus(peers, place, &place.test_worker(peers), "")),
        small("s6", |peers, place| s6(peers, place, &place.test_worker(peers))),
        small("runit", |peers, place| runit(peers, place, &place.test_worker(peers))),
        small("PM2, fork mode", |peers, place| {
            let words = place.test_worker(peers);
            let (program, words) = words.split_first().context("no command")?;
            let app = serde_json::json!({
                "name": "web", "script": program, "args": words, "interpreter": "none",
                "exec_mode": "fork", "instances": place.workers,
            });
            pm2(peers, place, &app)
        }),
    ]
}

pub(super) fn bare(peers: &Peers, place: &Place, words: &[String]) -> Plan {
    let mut bare = command(&peers.bench.own, ["bare-supervisor", &place.workers.to_string(), "--"]);
    bare.args(words);
    // Its workers are ended by the mark.
    Plan::new(bare).stop(Act::Signal(Signal::KILL))
}

pub(super) fn shiftboss(peers: &Peers, place: &Place, words: &[String], settings: &str) -> Result<Plan> {
    // Strings are written in JSON as in TOML.
    let words = serde_json::to_string(words)?;
    let text = format!(
        "app = \"bench\"\n[broker.web]\ncommand = {words}\nworkers = {}\n{settings}\n",
        place.workers
    );
    let config = shown(&place.write("shiftboss.toml", &text)?);
    let socket = shown(&place.file("control"));
    let with = |verb: &[&str]| {
        let mut shiftboss = command(&peers.bench.shiftboss, ["--config", &config, "--socket", &socket]);
        shiftboss.args(verb);
        shiftboss
    };
    Ok(Plan::new(with(&["run"])).reload(Act::Run(with(&["--timeout", "60s", "recycle", "web"]))))
}

pub(super) fn supervisord(peers: &Peers, place: &Place, words: &[String]) -> Result<Plan> {
    let venv = peers.installed.venv.clone().map_err(anyhow::Error::msg)?;
    let folder = place.folder.display();
    // More descriptors than its default only where the default would refuse.
    let more = if place.workers > 100 { "minfds=16384\n" } else { "" };
    let text = format!(
        "[supervisord]\nnodaemon=true\nlogfile={folder}/supervisord.log\npidfile={folder}/supervisord.pid\n\
         childlogdir={folder}\n{more}\
         [unix_http_server]\nfile={folder}/supervisor\n\
         [rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n\
         [supervisorctl]\nserverurl=unix://{folder}/supervisor\n\
         [program:web]\ncommand={}\nnumprocs={}\nprocess_name=%(program_name)s_%(process_num)d\n",
        words.join(" "),
        place.workers
    );
    let config = shown(&place.write("supervisord.conf", &text)?);
    let with = |program: &str, words: &[&str]| {
        let mut command = command(venv.join("bin").join(program), ["-c", &config]);
        command.args(words);
        command
    };
    Ok(Plan::new(with("supervisord", &[])).reload(Act::Run(with("supervisorctl", &["restart", "web:*"]))))
}

/// `more`: lines for its socket, after which its watcher may use it.
pub(super) fn circus(peers: &Peers, place: &Place, words: &[String], more: &str) -> Result<Plan> {
    let venv = peers.installed.venv.clone().map_err(anyhow::Error::msg)?;
    let endpoint = format!("ipc://{}", shown(&place.file("endpoint")));
    let text = format!(
        "[circus]\nendpoint = {endpoint}\npubsub_endpoint = ipc://{}\n\
         [watcher:web]\ncmd = {}\nnumprocesses = {}\ncopy_env = True\n{more}",
        shown(&place.file("pubsub")),
        words.join(" "),
        place.workers
    );
    let config = shown(&place.write("circus.ini", &text)?);
    let circusctl = venv.join("bin/circusctl");
    let reload = command(circusctl, ["--endpoint", &endpoint, "--timeout", "60", "reload", "web"]);
    Ok(Plan::new(command(venv.join("bin/circusd"), [config])).reload(Act::Run(reload)))
}

pub(super) fn s6(peers: &Peers, place: &Place, words: &[String]) -> Result<Plan> {
    peers.installed.s6.clone().map_err(anyhow::Error::msg)?;
    let scan = services(place, words)?;
    let mut svscan = Command::new("s6-svscan");
    if place.workers > 400 {
        svscan.args(["-c", &(place.workers + 100).to_string()]);
    }
    svscan.arg(&scan);
    let each = "for service in \"$@\"; do s6-svc -wr -r \"$service\"; done";
    Ok(Plan::new(svscan).reload(Act::Run(one_by_one(each, &scan, place))))
}

pub(super) fn runit(peers: &Peers, place: &Place, words: &[String]) -> Result<Plan> {
    peers.installed.runit.clone().map_err(anyhow::Error::msg)?;
    let scan = services(place, words)?;
    let runsvdir = command("runsvdir", [&scan]);
    let each = "for service in \"$@\"; do sv -w 30 restart \"$service\"; done";
    // At HUP it ends its runsv, which end their services.
    Ok(Plan::new(runsvdir).stop(Act::Signal(Signal::HUP)).reload(Act::Run(one_by_one(each, &scan, place))))
}

/// A folder with a service for each worker.
fn services(place: &Place, words: &[String]) -> Result<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let scan = place.file("scan");
    for at in 0..place.workers {
        let service = scan.join(format!("web-{at}"));
        std::fs::create_dir_all(&service).context("cannot make a service")?;
        let run = service.join("run");
        std::fs::write(&run, format!("#!/bin/sh\nexec {}\n", words.join(" ")))?;
        std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(scan)
}

fn one_by_one(script: &str, scan: &Path, place: &Place) -> Command {
    let mut command = command("/bin/sh", ["-c", script, "sh"]);
    command.args((0..place.workers).map(|at| scan.join(format!("web-{at}"))));
    command
}

pub(super) fn pm2(peers: &Peers, place: &Place, app: &serde_json::Value) -> Result<Plan> {
    let npm = peers.installed.npm.clone().map_err(anyhow::Error::msg)?;
    let config = place.write("ecosystem.json", &serde_json::json!({ "apps": [app] }).to_string())?;
    let program = npm.join("node_modules/pm2/bin/pm2");
    let with = |words: &[&str]| {
        let mut pm2 = Command::new("node");
        pm2.arg(&program).args(words);
        // Nothing of it outside of the folder, and no word to anybody.
        pm2.env("PM2_HOME", place.file("pm2")).env("PM2_DISABLE_VERSION_CHECK", "1").env("NO_COLOR", "1");
        pm2.env("PORT", place.port.to_string());
        pm2
    };
    let plan = Plan::new(with(&["start", &shown(&config)]));
    let plan = plan.stop(Act::Run(with(&["kill"]))).reload(Act::Run(with(&["reload", "web"])));
    Ok(Plan { pid_file: Some(place.file("pm2/pm2.pid")), ..plan })
}
