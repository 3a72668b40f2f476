//! UNIX paths that workers listen at.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;

use super::*;

/// What answers at this path, which may be longer than an address can be.
fn get_at(path: &Path) -> io::Result<String> {
    let folder = std::fs::File::open(path.parent().unwrap())?;
    let short = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&folder));
    let mut stream = UnixStream::connect(Path::new(&short).join(path.file_name().unwrap()))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    body(&mut stream)
}

fn is_served_until_nobody_wants_it(node: &Node, folder: &str) {
    let cluster = Cluster::asked(node, 2, "cwd = \"FOLDER\"\n");
    std::fs::create_dir_all(cluster.app.path(folder)).unwrap();
    let path = cluster.app.path(folder).join("web.sock");
    let listen = format!("return kept.listen(kept.web(), {path:?})");
    assert_eq!(cluster.tell_all(2, &listen), [json!(path), json!(path)], "{node}");
    let mut served = std::collections::BTreeSet::new();
    eventually("both have served", || {
        served.insert(get_at(&path).unwrap());
        served.len() == 2
    });
    let close = "return new Promise(closed => kept.servers.pop().close(() => closed(1)))";
    cluster.tell(0, close);
    assert!(path.exists() && get_at(&path).is_ok(), "{node}: the other one holds it");
    cluster.app.kill_broker();
    cluster.app.until_event("broker_adopted", 1);
    assert!(get_at(&path).is_ok(), "{node}: a successor holds it");
    // Nobody in the new shift asks for it.
    cluster.app.does(&["recycle", "web"]);
    eventually("the file is gone", || !path.exists());
    cluster.tell(0, &listen);
    assert!(get_at(&path).is_ok(), "{node}: it can be had again");
    cluster.app.stop();
    assert!(!path.exists(), "{node}");
}

/// Check 7.
#[test]
fn a_path_is_served_by_all_who_ask_for_it_and_gone_with_the_last() {
    each(|node| is_served_until_nobody_wants_it(node, "."));
}

/// Check 7: an address has room for 107 bytes (unix(7)).
#[test]
fn a_path_may_be_longer_than_an_address() {
    each(|node| is_served_until_nobody_wants_it(node, &"long/".repeat(40)));
}

/// Check 8.
#[test]
fn a_path_is_for_everybody_if_that_is_asked_for() {
    each(|node| {
        let cluster = Cluster::asked(node, 1, "");
        for (name, all, rights) in [
            ("none", "", 0o000),
            ("both", "readableAll: true, writableAll: true", 0o666),
            ("read", "readableAll: true", 0o444),
        ] {
            let path = cluster.app.path(name);
            cluster.tell(0, &format!("return kept.listen(kept.web(), {{ path: {path:?}, {all} }})"));
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & rights, rights, "{node}: {mode:o}");
            assert!(rights != 0 || mode & 0o022 == 0, "{node}: {mode:o}");
        }
    });
}

/// One that waits for its turn hears of whoever comes to a path, also to one that had to be bound anew.
#[test]
fn a_path_is_served_by_turns() {
    each(|node| {
        let declared = "listen = [{ address = \"unix://FOLDER/web.sock\", balance = \"round-robin\" }]";
        let cluster = Cluster::asked(node, 1, declared);
        let path = cluster.app.path("web.sock");
        let listen = format!("return kept.listen(kept.web(), {path:?})");
        for _ in 0..2 {
            cluster.tell(0, &listen);
            get_at(&path).unwrap();
            get_at(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            cluster.app.does(&["recycle", "web"]);
        }
    });
}
