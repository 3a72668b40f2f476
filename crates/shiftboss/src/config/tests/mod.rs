//! The promises of the configuration, and what they share: one file with everything.

#[cfg(all(feature = "schedule", feature = "watch"))]
mod clock_and_files;
mod environments;
mod hostile;
mod meaning;
mod mistakes;

use super::parse;

/// One file with every key, with a secret in its environment.
const WHOLE: &str = r#"
app = "shop"
[broker.api]
command   = ["node", "server.js", "é"]
kind      = "notify"
workers   = 4
standby   = 2
listen    = ["tcp://:3000", { name = "web", address = "unix:///run/web.sock" }]
ready     = "notify"
recycle   = { every = "1h", jitter = "20%", surge = 2, unavailable = 1, min_ready = "1s", deadline = "90s" }
stop      = [{ signal = "INT", wait = "20s" }, { signal = "sigterm", wait = "5s" }, { signal = "KILL" }]
backoff   = { base = "200ms", cap = "1m", healthy_after = "5s" }
drained   = "hold"
cwd       = "/srv/shop"
environment = { LOG_LEVEL = "zqxzqxzqx", "odd name" = "zqx" }
clean_environment = true

[broker.about]
command = ["./about"]
ready = { after = "1500ms" }
"#;

fn errors(text: &str) -> String {
    parse("shop/shiftboss.toml", text).map(|loaded| loaded.options).unwrap_err().to_string()
}
