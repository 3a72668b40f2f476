//! A worker whose event loop does not turn is replaced; all others take no notice of being asked.

use super::*;

const SOON: &str = "hung_after = \"5s\"\n";

#[test]
fn a_worker_whose_event_loop_hangs_is_replaced_and_that_is_said() {
    each(|node| {
        let cluster = Cluster::asked(node, 2, SOON);
        let victim = cluster.app.pids()[0];
        cluster.tell(0, "kept.soon(() => { for (;;); })");
        let death = cluster.event("worker_death", 1);
        assert_eq!(death["pid"], victim, "{node}");
        assert!(
            death["reason"].as_str().unwrap().contains("its event loop has not turned"),
            "{node}: {death}"
        );
        cluster.app.until("its successor is ready", |log| named(log, "worker_ready") == 3);
        let status = cluster.app.status();
        let broker = &status.brokers[0];
        assert!(broker.last_failure.as_ref().unwrap().contains("hung"), "{broker:?}");
        assert_eq!((broker.deaths, broker.ready), (1, 2));
    });
}

/// While it starts it may take as long as it likes.
#[test]
fn a_worker_that_is_slow_to_start_is_not_taken_for_one_that_hangs() {
    each(|node| {
        let port = free_port();
        let cluster = Cluster::ready(node, &["slow.js", &port.to_string()], 1, SOON);
        get(("127.0.0.1", port), "/").unwrap();
        assert_eq!(named(&cluster.app.log(), "worker_death"), 0, "{node}");
    });
}

/// One that is never asked can hang for as long as it likes.
#[test]
fn whether_a_worker_hangs_need_not_be_asked() {
    each(|node| {
        let cluster = Cluster::asked(node, 1, "hung_after = \"never\"\n");
        let hang = "const until = Date.now() + 3000; while (Date.now() < until); return 'turns'";
        assert_eq!(cluster.tell(0, hang), "turns", "{node}");
        assert_eq!(named(&cluster.app.log(), "worker_death"), 0);
    });
}

/// One that can open nothing more cannot take the question, and says so.
#[test]
fn a_worker_without_room_for_descriptors_does_not_hang() {
    each(|node| {
        let folder = tempfile::tempdir().unwrap();
        let limited = format!("ulimit -n 64; exec {} {}", node.path(), programs().join("asked.js").display());
        let config = format!(
            "app = \"node\"\n[broker.web]\ncommand = [\"sh\", \"-c\", {limited:?}]\nkind = \"node\"\nready = \"notify\"\n{SOON}"
        );
        std::fs::write(folder.path().join("shiftboss.toml"), config).unwrap();
        let cluster = Cluster { app: App::started(folder, &["run"], |_| {}) };
        cluster.app.until_event("app_ready", 1);
        let hoard = "kept.files = []; try { for (;;) kept.files.push(fs.openSync('/dev/null')) } catch (error) { return error.code }";
        assert_eq!(cluster.tell(0, hoard), "EMFILE", "{node}");
        cluster.tell(0, "return new Promise(over => setTimeout(over, 11_000))");
        assert_eq!(named(&cluster.app.log(), "worker_death"), 0, "{node}");
        cluster.tell(0, "kept.files.forEach(file => fs.closeSync(file))");
        cluster.tell(0, "return kept.listen(kept.web(), 0)");
    });
}

/// The same a hundred times more is in the tests of the channel.
#[test]
fn a_worker_takes_no_notice_of_being_asked() {
    each(|node| {
        for how in ["json", "advanced"] {
            let cluster = Cluster::asked(node, 1, &format!("serialization = \"{how}\"\n{SOON}"));
            // Files are Node's own: a thread of it reads certificates.
            let count = "const leadsTo = fd => { try { return fs.readlinkSync('/proc/self/fd/' + fd) } catch { return '/' } };
                const open = fs.readdirSync('/proc/self/fd').filter(fd => !leadsTo(fd).startsWith('/'));
                return [open.length, process.getActiveResourcesInfo().sort()]";
            // Its output is opened when it first writes.
            cluster.tell(0, count);
            let before = cluster.tell(0, count);
            let wait = "return new Promise(over => setTimeout(() => over(kept.heard.length), 11_000))";
            assert_eq!(cluster.tell(0, wait), 0, "{node}, {how}: nothing was heard");
            assert_eq!(cluster.tell(0, count), before, "{node}, {how}");
            assert_eq!(named(&cluster.app.log(), "worker_death"), 0);
        }
    });
}
