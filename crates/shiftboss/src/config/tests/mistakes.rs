//! The words with which each family of mistakes is shown.

use super::super::parse;
use super::errors;
use crate::options::check::is_name;

#[test]
fn all_mistakes_of_a_file_are_shown_at_once_and_in_order() {
    let text = "\
app = \"shop\"
[broker.web]
command = \"node server.js\"
workers = 0
[broker.api]
command = [\"./api\"]
worker = 4
recycle = { every = 30 }
drained = \"hodl\"
nice = 1
";
    let expected = "\
error: broker `web`: `command`: expected an array of strings, found a string
  ┌ shop/shiftboss.toml:3:11
3 │ command = \"node server.js\"
  │           ^^^^^^^^^^^^^^^^
  └ help: no shell is involved: command = [\"node\", \"server.js\"]

error: broker `web`: `workers`: a broker without workers serves nobody
  ┌ shop/shiftboss.toml:4:11
4 │ workers = 0
  │           ^ write 1 to 100000, or \"cpus\"
  └ help: `shiftboss drain` sends all workers home

error: unknown key `worker` in broker `api`
  ┌ shop/shiftboss.toml:7:1
7 │ worker = 4
  │ ^^^^^^ did you mean `workers`?

error: broker `api`: `recycle.every`: expected a duration, found an integer
  ┌ shop/shiftboss.toml:8:21
8 │ recycle = { every = 30 }
  │                     ^^ write \"30s\"

error: broker `api`: `drained`: expected \"refuse\" or \"hold\", found \"hodl\"
  ┌ shop/shiftboss.toml:9:11
9 │ drained = \"hodl\"
  │           ^^^^^^ did you mean \"hold\"?

error: broker `api`: `nice` is known, but not in this version of shiftboss
   ┌ shop/shiftboss.toml:10:1
10 │ nice = 1
   │ ^^^^";
    assert_eq!(errors(text), expected);
    assert_eq!(parse("shiftboss.toml", text).unwrap_err().count(), 6);
}

#[test]
fn an_unknown_key_names_the_nearest_or_all_that_could_stand_there() {
    let text = "brokers = 1\nworkers = 4\n[broker.api]\ncommand = [\"x\"]\nbackoff = { xyzzy = 1 }\n";
    let expected = "\
error: unknown key `brokers` at the top level
  ┌ shop/shiftboss.toml:1:1
1 │ brokers = 1
  │ ^^^^^^^ did you mean `broker`?

error: unknown key `workers` at the top level
  ┌ shop/shiftboss.toml:2:1
2 │ workers = 4
  │ ^^^^^^^ belongs in a broker's table, below [broker.NAME]

error: unknown key `xyzzy` in `backoff` of broker `api`
  ┌ shop/shiftboss.toml:5:13
5 │ backoff = { xyzzy = 1 }
  │             ^^^^^ expected one of: base, cap, healthy_after";
    assert_eq!(errors(text), expected);
}

#[test]
fn keys_of_later_versions_are_that_and_nothing_else() {
    for lines in [
        "env_file = 1",
        "user = 1",
        "group = 1",
        "umask = 1",
        "nice = 1",
        "cpus = 1",
        "limits = 1",
        "cgroup = 1",
        "output = 1",
        "after = 1",
        "balance = 1",
        "max_message = 1",
        "kind = \"one_shot\"",
        "workers = { min = 2, max = 8 }",
        "ready = { http = \"x\" }",
        "ready = { exec = [] }",
        "ready = { tcp = 1 }",
        "recycle = { max_memory = 5 }",
        "recycle = { max_age = 5 }",
        "listen = [\"tcp://:80{slot}\"]",
        "[control]",
        "[metrics]",
        "[sentry]",
        "[fleet]",
        "[dashboard]",
    ] {
        let found = broker_errors(lines);
        let words: Vec<&str> = found.split_whitespace().collect();
        assert!(words.join(" ").contains("is known, but not in this version of shiftboss"), "{found}");
        assert_eq!(found.matches("error:").count(), 1, "{found}");
    }
}

#[test]
fn a_value_that_does_not_fit_says_what_was_expected() {
    let lines = "\
workers = \"4\"
cwd = 1
clean_environment = \"yes\"
recycle = { jitter = 10, surge = -1, min_ready = \"5\" }
backoff = []
";
    let expected = "\
error: broker `api`: `workers`: expected a number from 1 to 100000, or \"cpus\",
       found \"4\"
  ┌ shop/shiftboss.toml:3:11
3 │ workers = \"4\"
  │           ^^^ write 4 without quotes

error: broker `api`: `cwd`: expected a string, found an integer
  ┌ shop/shiftboss.toml:4:7
4 │ cwd = 1
  │       ^

error: broker `api`: `clean_environment`: expected true or false, found a string
  ┌ shop/shiftboss.toml:5:21
5 │ clean_environment = \"yes\"
  │                     ^^^^^

error: broker `api`: `recycle.jitter`: expected a percentage, found an integer
  ┌ shop/shiftboss.toml:6:22
6 │ recycle = { jitter = 10, surge = -1, min_ready = \"5\" }
  │                      ^^ write one like \"10%\"

error: broker `api`: `recycle.surge`: expected a number from 0 to 100000
  ┌ shop/shiftboss.toml:6:34
6 │ recycle = { jitter = 10, surge = -1, min_ready = \"5\" }
  │                                  ^^

error: broker `api`: `recycle.min_ready`: expected a duration, found \"5\"
  ┌ shop/shiftboss.toml:6:50
6 │ recycle = { jitter = 10, surge = -1, min_ready = \"5\" }
  │                                                  ^^^
  │ a unit has to follow 5: ms, s, m, h or d, as in \"5s\"

error: broker `api`: `backoff`: expected a table, found an array
  ┌ shop/shiftboss.toml:7:11
7 │ backoff = []
  │           ^^";
    assert_eq!(broker_errors(lines), expected);
}

#[test]
fn a_command_names_a_program_and_no_shell() {
    let text = "\
[broker.a]
[broker.b]
command = []
[broker.c]
command = [\"x\", 1, \"\"]
[broker.d]
command = \"a | b\"
";
    let expected = "\
error: broker `a`: `command` is missing
  ┌ shop/shiftboss.toml:1:9
1 │ [broker.a]
  │         ^ write command = [\"program\", \"argument\"]

error: broker `b`: `command`: it is empty
  ┌ shop/shiftboss.toml:3:11
3 │ command = []
  │           ^^ write [\"program\", \"argument\"]

error: broker `c`: `command`: expected a string, found an integer
  ┌ shop/shiftboss.toml:5:17
5 │ command = [\"x\", 1, \"\"]
  │                 ^

error: broker `d`: `command`: expected an array of strings, found a string
  ┌ shop/shiftboss.toml:7:11
7 │ command = \"a | b\"
  │           ^^^^^^^
  └ help: no shell is involved: command = [\"sh\", \"-c\", \"a | b\"]";
    assert_eq!(errors(text), expected);
}

#[test]
fn an_address_is_listened_on_once() {
    let text = "\
[broker.a]
command = [\"x\"]
listen = [\"tcp://:3000\", \":3000\", \"tcp://:0\", \"tcp://:0\"]
[broker.b]
command = [\"x\"]
listen = [\"3000\", \"http://:1\", { name = \"a:b\" }]
[broker.c]
command = [\"x\"]
listen = 3001
";
    let expected = "\
error: broker `a`: `listen`: `tcp://:3000` is listed twice
  ┌ shop/shiftboss.toml:3:26
3 │ listen = [\"tcp://:3000\", \":3000\", \"tcp://:0\", \"tcp://:0\"]
  │                          ^^^^^^^

error: broker `b`: `listen`: `tcp://:3000` is taken by broker `a`
  ┌ shop/shiftboss.toml:6:11
6 │ listen = [\"3000\", \"http://:1\", { name = \"a:b\" }]
  │           ^^^^^^

error: broker `b`: `listen`: `http://:1` is no address
  ┌ shop/shiftboss.toml:6:19
6 │ listen = [\"3000\", \"http://:1\", { name = \"a:b\" }]
  │                   ^^^^^^^^^^^ expected tcp://, udp:// or unix://

error: broker `b`: `listen.address` is missing
  ┌ shop/shiftboss.toml:6:32
6 │ listen = [\"3000\", \"http://:1\", { name = \"a:b\" }]
  │                                ^^^^^^^^^^^^^^^^
  │ write address = \"tcp://:3000\"

error: broker `b`: `listen.name`: `a:b` is no name of a listener
  ┌ shop/shiftboss.toml:6:41
6 │ listen = [\"3000\", \"http://:1\", { name = \"a:b\" }]
  │                                         ^^^^^
  │ up to 255 printable ASCII characters but space and `:`

error: broker `c`: `listen`: expected an array of addresses, found an integer
  ┌ shop/shiftboss.toml:9:10
9 │ listen = 3001
  │          ^^^^
  └ help: listen = [\"tcp://:3001\"]";
    assert_eq!(errors(text), expected);
}

#[test]
fn lanes_are_of_tcp_and_not_too_many() {
    let text = "\
[broker.a]
command = [\"x\"]
listen = [{ address = \"unix:///run/a\", balance = \"lanes\" }, { address = \"udp://:1\", balance = \"lanes\" }]
[broker.b]
command = [\"x\"]
workers = 1001
listen = [{ address = \"tcp://:2\", balance = \"lanes\" }, { address = \"tcp://:3\", balance = \"lane\" }]
[broker.c]
command = [\"x\"]
workers = 1001
listen = [{ address = \"tcp://:4\", balance = \"lanes\" }]
";
    let expected = "\
error: broker `a`: `listen.balance`: lanes need a tcp:// address
  ┌ shop/shiftboss.toml:3:50
3 │ listen = [{ address = \"unix:///run/a\", balance = \"lanes\" }, { address = \"u…
  │                                                  ^^^^^^^
  │ a path has one socket, and one queue

error: broker `a`: `listen.balance`: lanes need a tcp:// address
  ┌ shop/shiftboss.toml:3:95
3 │ …dp://:1\", balance = \"lanes\" }]
  │                      ^^^^^^^
  │ only TCP tells a new client from one that goes on

error: broker `b`: `listen.balance`: expected \"shared\" or \"round-robin\" or
       \"lanes\", found \"lane\"
  ┌ shop/shiftboss.toml:7:90
7 │ …cp://:3\", balance = \"lane\" }]
  │                      ^^^^^^ did you mean \"lanes\"?

error: broker `c`: 1001 workers are too many for lanes
   ┌ shop/shiftboss.toml:10:11
10 │ workers = 1001
   │           ^^^^ at most 1000
   └ help: balance = \"shared\" has no such limit";
    assert_eq!(errors(text), expected);
}

#[test]
fn limits_under_which_nothing_could_happen_are_refused() {
    let text = "\
[broker.a]
command = [\"x\"]
recycle = { surge = 0 }
backoff = { base = \"1m\" }
ready = \"notify\"
[broker.b]
command = [\"x\"]
recycle = { unavailable = 2, every = \"5ms\" }
ready = \"accepting\"
[broker.c]
command = [\"x\"]
recycle = { unavailable = 2 }
ready = {}
";
    let expected = "\
error: broker `a`: surge and unavailable are both 0, so no recycle could start
  ┌ shop/shiftboss.toml:3:21
3 │ recycle = { surge = 0 }
  │                     ^
  └ help: surge = 1 starts a new worker before the old one leaves

error: broker `a`: backoff: base 1m is longer than cap 30s (the default)
  ┌ shop/shiftboss.toml:4:20
4 │ backoff = { base = \"1m\" }
  │                    ^^^^

error: broker `a`: ready = \"notify\" needs kind = \"notify\"
  ┌ shop/shiftboss.toml:5:9
5 │ ready = \"notify\"
  │         ^^^^^^^^
  └ help: kind = \"notify\" gives the workers a NOTIFY_SOCKET to say READY=1 on

error: broker `b`: recycle.unavailable is 2, but there is only 1 worker
  ┌ shop/shiftboss.toml:8:27
8 │ recycle = { unavailable = 2, every = \"5ms\" }
  │                           ^

error: broker `b`: `recycle.every`: expected at least 1s, found 5ms
  ┌ shop/shiftboss.toml:8:38
8 │ recycle = { unavailable = 2, every = \"5ms\" }
  │                                      ^^^^^

error: broker `b`: ready = \"accepting\" needs a tcp:// or unix:// listener
  ┌ shop/shiftboss.toml:9:9
9 │ ready = \"accepting\"
  │         ^^^^^^^^^^^
  └ help: without one, say how long a worker has to stay alive: ready = { after
          = \"1s\" }

error: broker `c`: recycle.unavailable is 2, but there is only 1 worker
   ┌ shop/shiftboss.toml:12:27
12 │ recycle = { unavailable = 2 }
   │                           ^

error: broker `c`: `ready`: it says nothing
   ┌ shop/shiftboss.toml:13:9
13 │ ready = {}
   │         ^^
   └ help: write \"notify\", \"accepting\" or { after = \"1s\" }";
    assert_eq!(errors(text), expected);
}

#[test]
fn a_ladder_leads_down_to_kill() {
    let text = "\
[broker.a]
command = [\"x\"]
stop = []
[broker.b]
command = [\"x\"]
stop = [{ signal = \"TREM\", wait = \"1s\" }, { signal = \"INT\" }]
[broker.c]
command = [\"x\"]
stop = [{ signal = \"KILL\" }, { signal = \"TERM\", wait = \"1s\" }]
";
    let expected = "\
error: broker `a`: `stop`: a ladder without rungs stops nobody
  ┌ shop/shiftboss.toml:3:8
3 │ stop = []
  │        ^^
  └ help: stop = [{ signal = \"TERM\", wait = \"30s\" }, { signal = \"KILL\" }]

error: broker `b`: `stop.signal`: unknown signal `TREM`
  ┌ shop/shiftboss.toml:6:20
6 │ stop = [{ signal = \"TREM\", wait = \"1s\" }, { signal = \"INT\" }]
  │                    ^^^^^^ did you mean \"TERM\"?

error: broker `b`: `stop.wait` is missing
  ┌ shop/shiftboss.toml:6:43
6 │ stop = [{ signal = \"TREM\", wait = \"1s\" }, { signal = \"INT\" }]
  │                                           ^^^^^^^^^^^^^^^^^^
  │ write wait = \"5s\"

error: broker `c`: `stop`: a rung after KILL is never reached
  ┌ shop/shiftboss.toml:9:30
9 │ stop = [{ signal = \"KILL\" }, { signal = \"TERM\", wait = \"1s\" }]
  │                              ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  │ KILL ends the ladder";
    assert_eq!(errors(text), expected);
}

#[test]
fn mistakes_in_an_environment_name_variables_and_show_no_value() {
    let lines = "environment = { LISTEN_FDS = \"3\", KEY = \"zqx\", PIN = 77, \"A=zqx\" = \"\" }\n";
    let expected = "\
error: broker `api`: `environment.LISTEN_FDS`: this variable is set by shiftboss
       itself
  ┌ shop/shiftboss.toml:3:17
3 │ environment = { LISTEN_FDS = …, KEY = …, PIN = …, … = … }
  │                 ^^^^^^^^^^

error: broker `api`: `environment.PIN`: expected a string, found an integer
  ┌ shop/shiftboss.toml:3:54
3 │ environment = { LISTEN_FDS = …, KEY = …, PIN = …, … = … }
  │                                                ^ write it in quotes

error: broker `api`: `environment.A`: the name of a variable holds no `=`
  ┌ shop/shiftboss.toml:3:58
3 │ environment = { LISTEN_FDS = …, KEY = …, PIN = …, … = … }
  │                                                   ^";
    assert_eq!(broker_errors(lines), expected);
    for name in [
        "LISTEN_PID",
        "NOTIFY_SOCKET",
        "SHIFTBOSS_X",
        "NODE_CHANNEL_FD",
        "NODE_UNIQUE_ID",
        "worker_type",
        "env",
    ] {
        let found = broker_errors(&format!("environment = {{ {name} = \"\" }}\n"));
        assert!(found.contains(&format!("`environment.{name}`")), "{found}");
    }
}

#[test]
fn names_of_apps_and_brokers_fit_into_paths_and_addresses() {
    let text = "app = \"-x\"\n[broker.\"a b\"]\ncommand = [\"x\"]\n";
    let expected = "\
error: `app`: `-x` is no name of an app
  ┌ shop/shiftboss.toml:1:7
1 │ app = \"-x\"
  │       ^^^^ 1 to 64 of A-Z a-z 0-9 _ -, starting with a letter or digit

error: `a b` is no name of a broker
  ┌ shop/shiftboss.toml:2:9
2 │ [broker.\"a b\"]
  │         ^^^^^ 1 to 64 of A-Z a-z 0-9 _ -, starting with a letter or digit";
    assert_eq!(errors(text), expected);
    assert_eq!(
        parse("my shop/shiftboss.toml", "").unwrap_err().to_string(),
        "\
error: `app` is missing, and the directory's name `my shop` is no name of an app
  ┌ my shop/shiftboss.toml
  └ help: begin the file with a name, like app = \"shop\"

error: there is no broker, so nothing would run
  ┌ my shop/shiftboss.toml
  └ help: [broker.api] and below it command = [\"program\", \"argument\"]"
    );
    for (name, fits) in [("a", true), ("7-_Z", true), ("_a", false), ("é", false), ("", false)] {
        assert_eq!(is_name(name), fits, "{name}");
    }
    assert!(is_name(&"a".repeat(64)) && !is_name(&"a".repeat(65)));
}

#[test]
fn where_the_text_is_no_toml_only_that_is_said() {
    let text = "app = = 1\n[broker.api]\ncommand = [\"a\" \"b\"]\nworkers 4\n";
    let expected = "\
error: not valid TOML: extra `=`
  ┌ shop/shiftboss.toml:1:7
1 │ app = = 1
  │       ^

error: not valid TOML: missing comma between array elements, expected `,`
  ┌ shop/shiftboss.toml:3:16
3 │ command = [\"a\" \"b\"]
  │                ^

error: not valid TOML: key with no value, expected `=`
  ┌ shop/shiftboss.toml:4:9
4 │ workers 4
  │         ^";
    assert_eq!(errors(text), expected);
}

/// The errors of a broker `api` with a right command and these lines, which start at line 3.
fn broker_errors(lines: &str) -> String {
    errors(&format!("[broker.api]\ncommand = [\"x\"]\n{lines}"))
}

#[test]
fn standbys_are_workers_that_can_wait_at_the_door() {
    let of = |lines: &str| format!("app = \"shop\"\n[broker.api]\ncommand = [\"x\"]\n{lines}\n");
    for lines in ["standby = 0", "kind = \"notify\"\nstandby = 2", "kind = \"node\"\nstandby = 2"] {
        let loaded = parse("shiftboss.toml", &of(lines)).unwrap();
        assert_eq!(loaded.options.brokers[0].1.standby, u32::from(lines.contains('2')) * 2);
    }
    let expected = "\
error: broker `api`: `standby` needs workers that wait at the door; plain ones
       serve as soon as they have started
  ┌ shop/shiftboss.toml:4:11
4 │ standby = 1
  │           ^
  └ help: kind = \"node\", or kind = \"notify\" with a program that says
          SHIFTBOSS_STANDBY on its channel and waits (docs/channel.md)";
    assert_eq!(errors(&of("standby = 1")), expected);
    assert_eq!(errors(&of("standby = 1\nkind = \"plain\"")), expected);
    let told = errors(&of("kind = \"notify\"\nstandby = 1\nenvironment = { PORT = \"80{slot}\" }"));
    assert!(told.contains("a standby is started without a slot"), "{told}");
    let lanes = "standby = 1\nlisten = [{ address = \"tcp://:1\", balance = \"lanes\" }]\n";
    let told = errors(&of(&format!("kind = \"notify\"\n{lanes}")));
    assert!(told.contains("cannot be given the lane"), "{told}");
    assert!(parse("shiftboss.toml", &of(&format!("kind = \"node\"\n{lanes}"))).is_ok());
    assert!(errors(&of("standby = true")).contains("expected an integer"));
}

#[test]
fn all_mistakes_of_a_table_are_told_at_once() {
    let found = broker_errors(
        "recycle = { every = \"x\", surge = 0, jitter = \"5\" }\nbackoff = { base = \"1h\", cap = \"1m\", healthy_after = 1 }\n\
         stop = [{ message = \"\", wait = \"y\" }, { signal = \"TRM\" }]\n",
    );
    for words in [
        "`recycle.every`: expected a duration",
        "surge and unavailable are both 0",
        "`recycle.jitter`: expected",
        "base 1h is longer than cap 1m",
        "`backoff.healthy_after`: expected a duration",
        "`stop.message`: it is empty",
        "`stop.wait`: expected a duration",
        "unknown signal `TRM`",
        "`stop.wait` is missing",
    ] {
        assert!(found.split_whitespace().collect::<Vec<_>>().join(" ").contains(words), "{words}:\n{found}");
    }
    assert_eq!(found.matches("error:").count(), 9, "{found}");
}
