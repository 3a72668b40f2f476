//! Files that cannot be read, or that ask for what cannot be.

use super::*;

/// One of each kind: a typo, a wrong type, an impossible pair, a key of a later version, no workers, a bad address.
const MISTAKES: &str = r#"app = "shop"
[broker.api]
command = ["./server"]
worker = 4
ready = "notify"
recycle = { surge = 0, unavailable = 0 }
nice = 1
[broker.jobs]
command = "node jobs.js"
workers = 0
listen = ["tcp://example:80"]
"#;

const SHOWN: &str = r#"error: unknown key `worker` in broker `api`
  ┌ shiftboss.toml:4:1
4 │ worker = 4
  │ ^^^^^^ did you mean `workers`?

error: broker `api`: ready = "notify" needs kind = "notify"
  ┌ shiftboss.toml:5:9
5 │ ready = "notify"
  │         ^^^^^^^^
  └ help: kind = "notify" gives the workers a NOTIFY_SOCKET to say READY=1 on

error: broker `api`: surge and unavailable are both 0, so no recycle could start
  ┌ shiftboss.toml:6:21
6 │ recycle = { surge = 0, unavailable = 0 }
  │                     ^
  └ help: surge = 1 starts a new worker before the old one leaves

error: broker `api`: `nice` is known, but not in this version of shiftboss
  ┌ shiftboss.toml:7:1
7 │ nice = 1
  │ ^^^^

error: broker `jobs`: `command`: expected an array of strings, found a string
  ┌ shiftboss.toml:9:11
9 │ command = "node jobs.js"
  │           ^^^^^^^^^^^^^^
  └ help: no shell is involved: command = ["node", "jobs.js"]

error: broker `jobs`: `workers`: a broker without workers serves nobody
   ┌ shiftboss.toml:10:11
10 │ workers = 0
   │           ^ write 1 to 100000, or "cpus"
   └ help: `shiftboss drain` sends all workers home
"#;

#[test]
fn every_mistake_of_a_file_is_shown_at_once_and_nothing_is_started() {
    let folder = folder_with(MISTAKES);
    for verb in ["check", "run"] {
        let said = say(folder.path(), &[verb]);
        said.is_refusal(78, &["shiftboss.toml:11:11", "tcp://example:80", "^^^^"]);
        assert!(said.err.starts_with(SHOWN), "{said}");
        // The program of api is not there either.
        assert!(said.err.contains("/server` does not exist\n  ┌ shiftboss.toml:3:1"), "{said}");
        assert_eq!(said.errors(), 8, "{said}");
        let met: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|met| met.unwrap().file_name()).collect();
        assert_eq!(met, ["shiftboss.toml"], "{verb} leaves nothing behind");
    }
}

#[test]
fn text_that_is_no_toml_is_shown_at_its_place() {
    let folder = folder_with("app = \"shop\"\n[broker.api\ncommand = [\"x\"]\n");
    for verb in ["check", "run"] {
        say(folder.path(), &[verb]).is_one_error(78, &["shiftboss.toml:2:", "2 │ [broker.api", "^"]);
    }
}

#[test]
fn all_programs_and_folders_that_are_not_there_are_shown_at_once() {
    let folder = folder_with(
        r#"app = "shop"
[broker.api]
command = ["no-such-program"]
[broker.jobs]
command = ["FOLDER/shiftboss.toml"]
[broker.mail]
command = ["sleep", "60"]
cwd = "/no/such/folder"
"#,
    );
    for verb in ["check", "run"] {
        let said = say(folder.path(), &[verb]);
        said.is_refusal(
            78,
            &[
                "shiftboss.toml:8:1\n8 │ cwd = \"/no/such/folder\"\n  │ ^^^",
                "broker `mail`: there is no directory `/no/such/folder`",
                "broker `api`: `no-such-program` is in none of the",
                "shiftboss.toml:3:1\n3 │ command = [\"no-such-program\"]\n  │ ^^^",
                "broker `jobs`: ",
                "shiftboss.toml` is not executable",
                "help: `chmod +x /",
            ],
        );
        assert_eq!(said.errors(), 3, "each once: {said}");
    }
}

#[test]
fn what_is_not_there_in_another_environment_is_a_warning_of_check_alone() {
    let layer = "[env.production.broker.api]\ncommand = [\"no-such-program\"]\ncwd = \"/no/such/folder\"\n";
    let folder = folder_with(&format!("{SHOP}{layer}"));
    let said = say(folder.path(), &["check"]);
    assert_eq!((said.code, said.errors()), (Some(0), 0), "{said}");
    for words in
        ["`/no/such/folder`\n   ┌ shiftboss.toml:12:1", "`no-such-program` is in none", "shiftboss.toml:11:1"]
    {
        assert!(said.err.contains(words), "{words}: {said}");
    }
    assert_eq!(said.err.matches("warning: environment `production`: broker `api`: ").count(), 2, "{said}");
    let said = say(folder.path(), &["check", "--env", "production"]);
    said.is_refusal(
        78,
        &["error: broker `api`: there is no directory", "error: broker `api`: `no-such-program`"],
    );
}

#[test]
fn check_tells_programs_in_json_what_it_tells_people() {
    let problems = |folder: &TempDir, arguments: &[&str], code: i32| {
        let said = say(folder.path(), &[&["check", "--json"], arguments].concat());
        assert_eq!((said.code, said.err.as_str()), (Some(code), ""), "{said}");
        let told: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(told["valid"], code == 0, "{said}");
        told
    };
    let told = problems(&folder_with(MISTAKES), &[], 78);
    let all = told["problems"].as_array().unwrap();
    assert_eq!((all.len(), &told["left_out"]), (8, &0.into()), "{told}");
    let first = serde_json::json!({
        "warning": false, "line": 4, "column": 1, "message": "unknown key `worker` in broker `api`",
        "label": "did you mean `workers`?", "help": null,
    });
    assert_eq!(all[0], first);
    let shop = folder_with(SHOP);
    let told = problems(&shop, &[], 0);
    assert_eq!((&told["brokers"], &told["workers"]), (&2.into(), &3.into()), "{told}");
    assert_eq!(told["problems"], serde_json::json!([]));
    let told = problems(&shop, &["--env", "staging"], 78);
    assert_eq!(told["problems"][0]["help"], "it has: default");
    let told = problems(&tempfile::tempdir().unwrap(), &[], 78);
    assert_eq!(told["problems"][0]["message"], "there is no shiftboss.toml");
    let said = say(shop.path(), &["check", "--explain", "--json"]);
    said.is_one_error(2, &["--explain is text only", "`shiftboss check --json`"]);
}

#[test]
fn a_file_that_is_missing_is_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    for verb in ["check", "run", "status"] {
        let said = say(folder.path(), &["--app", "x", verb, "-c", "gone.toml"]);
        let code = if verb == "status" { 69 } else { 78 };
        said.is_one_error(code, &[if verb == "status" { "no app answers" } else { "there is no gone.toml" }]);
    }
    // The file alone says which app is meant.
    let said = say_in_place(folder.path(), &["status", "-c", "gone.toml"]);
    said.is_one_error(78, &["there is no gone.toml", "--app NAME"]);
}

#[test]
fn what_is_no_file_and_what_is_no_text_is_refused_without_waiting_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("folder.toml")).unwrap();
    std::fs::write(path("latin.toml"), b"app = \"caf\xe9\"\n").unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, path("fifo.toml"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    for verb in ["check", "run"] {
        say(folder.path(), &[verb, "-c", "folder.toml"])
            .is_one_error(78, &["found a directory", "folder.toml"]);
        say(folder.path(), &[verb, "-c", "fifo.toml"])
            .is_one_error(78, &["expected a regular file", "fifo.toml"]);
        let said = say(folder.path(), &[verb, "-c", "latin.toml"]);
        said.is_one_error(78, &["not valid UTF-8: byte 0xe9", "latin.toml:1:11"]);
    }
    for name in ["folder.toml", "fifo.toml"] {
        let said = say_in_place(folder.path(), &["status", "-c", name]);
        said.is_one_error(78, &[name, "expected a regular file"]);
    }
    let said = say_in_place(folder.path(), &["status", "-c", "latin.toml"]);
    said.is_one_error(78, &["latin.toml: not valid UTF-8"]);
}

#[test]
fn an_environment_that_the_file_does_not_have_is_refused_wherever_it_was_asked_for() {
    let folder = folder_with(SHOP);
    for verb in ["check", "run"] {
        let said = say(folder.path(), &[verb, "--env", "production"]);
        said.is_one_error(78, &["--env asks for the environment `production`", "it has: default"]);
        let said = say_with(folder.path(), &[verb], |command| {
            command.env("env", "staging");
        });
        said.is_one_error(78, &["$env asks for the environment `staging`", "it has: default"]);
    }
}

#[test]
fn every_environment_of_a_file_is_checked_and_the_one_that_is_asked_for_is_explained() {
    let layers = "
[settings]
password = \"zqxzqx\"
[env.production.broker.api]
workers = 8
[env.production.settings]
password = \"zqxzqxzqx\"
";
    let folder = folder_with(&format!("{SHOP}{layers}"));
    for (environment, workers) in [("default", "workers = 2 "), ("production", "workers = 8 ")] {
        let said = say(folder.path(), &["check", "--explain", "--env", environment]);
        assert_eq!((said.code, said.out.contains(workers)), (Some(0), true), "{said}");
        assert!(said.out.contains("# password ") && !said.out.contains("zqx"), "{said}");
    }
    let said = say(folder.path(), &["check", "--env", "staging"]);
    said.is_one_error(78, &["--env asks for the environment `staging`", "it has: default, production"]);
    let folder = folder_with(&format!("{SHOP}{layers}[env.staging.broker.jobs]\nworker = 1\n"));
    for verb in ["check", "run"] {
        say(folder.path(), &[verb]).is_one_error(78, &["environment `staging`: unknown key `worker`"]);
    }
}

/// As [`say`], but without `--socket`: the app is the one of the file.
#[track_caller]
fn say_in_place(folder: &Path, arguments: &[&str]) -> Said {
    let output = Command::new(BIN).args(arguments).current_dir(folder).env_remove("env").output().unwrap();
    Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}
