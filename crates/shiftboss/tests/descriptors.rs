//! What is left of a broker that there were no descriptors for. Limits are those of a process: the only test in it.
#![cfg(feature = "watch")]

use std::fs::File;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shiftboss::{App, Broker, BrokerOptions, Watch};

#[test]
fn a_broker_that_cannot_join_has_not_and_can_later() {
    let folder = tempfile::tempdir().unwrap();
    let app = App::builder("test").control_socket(folder.path().join("app.sock")).build().unwrap();
    let sleeper = |watch| {
        let mut options = BrokerOptions::new(["sleep", "1000"]);
        (options.watch, options.ready) = (watch, Some(shiftboss::options::Ready::After(Default::default())));
        options
    };
    let first = Broker::start(&app, "first", sleeper(None)).unwrap();
    first.resume_workers().wait().unwrap();

    let watch = Some(Watch::new(["*.js"]).unwrap().relative_to(folder.path()));
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..before }).unwrap();
    let many = BrokerOptions { workers: 20, ..sleeper(None) };
    let error = Broker::start(&app, "many", many).unwrap_err().to_string();
    assert!(error.contains("no more than 64 files may be open"), "{error}");
    let mut all: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    // Enough to look a program up, and not to watch.
    all.pop();
    let error = Broker::start(&app, "second", sleeper(watch.clone())).unwrap_err().to_string();
    drop(all);
    setrlimit(Resource::Nofile, before).unwrap();
    assert!(error.contains("cannot look outside"), "{error}");

    for worker_type in ["second", "third"] {
        let broker = Broker::start(&app, worker_type, sleeper(watch.clone())).unwrap();
        broker.resume_workers().wait().unwrap();
        assert_eq!(broker.workers().wait().unwrap().len(), 1, "{worker_type}");
    }
    app.stop(true);
    app.wait().unwrap();
}
