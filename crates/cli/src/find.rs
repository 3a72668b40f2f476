//! Which app is meant: the one of `--socket`, of `--app`, of the configuration, or the only one that answers.

use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use shiftboss::config::app_of;
use shiftboss::os::instance::{default_socket, running_sockets};

use crate::args::Global;
use crate::exit::{Exit, Trouble};

/// The socket to ask.
pub(crate) fn socket(global: &Global) -> Result<PathBuf, Trouble> {
    socket_for(global, Path::new(DEFAULT_CONFIG), default_socket, || {
        running_sockets().into_iter().filter(|socket| answers(socket)).collect()
    })
}

/// Somebody listens there; a frozen app with a full queue does, too (`EAGAIN`, unix(7)).
fn answers(socket: &Path) -> bool {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let connect = || {
        let stream = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&stream, &SocketAddrUnix::new(socket)?)
    };
    matches!(connect(), Ok(()) | Err(rustix::io::Errno::AGAIN))
}

/// The rules, over what `socket` finds on this machine: where an app's socket is, and which ones answer.
fn socket_for(
    global: &Global,
    default_config: &Path,
    socket_of: impl Fn(&str) -> PathBuf,
    running: impl Fn() -> Vec<PathBuf>,
) -> Result<PathBuf, Trouble> {
    if let Some(socket) = &global.socket {
        return Ok(socket.clone());
    }
    if let Some(app) = &global.app {
        return name(app).map(socket_of);
    }
    let config = global.config.as_deref().unwrap_or(default_config);
    match app_of_file(config)? {
        Some(app) => return Ok(socket_of(&app)),
        None if global.config.is_some() => {
            return Err(Trouble::new(Exit::Config, format!("there is no {}", config.display()))
                .help("--app NAME or --socket PATH asks an app without its file"));
        }
        None => {}
    }
    let mut running = running();
    match (running.pop(), running.len()) {
        (Some(only), 0) => Ok(only),
        (None, _) => Err(Trouble::new(
            Exit::NoApp,
            "no app answers on this machine, and there is no shiftboss.toml here",
        )
        .help("`shiftboss run -w 2 -- CMD` starts one; --socket PATH asks one elsewhere")),
        (Some(last), _) => {
            running.push(last);
            running.sort();
            let names: Vec<&str> = running
                .iter()
                .filter_map(|socket| socket.file_stem().and_then(|name| name.to_str()))
                .collect();
            Err(Trouble::usage(format!("several apps answer: {}", names.join(", ")))
                .help("name one with --app NAME, or work in the directory of its shiftboss.toml"))
        }
    }
}

/// The app's name in a configuration; none if there is no such file. Reads no further than the name, so that an app
/// can be asked while its file is being mended. A file without a name is the app of its directory.
fn app_of_file(config: &Path) -> Result<Option<String>, Trouble> {
    let wrong = |why: String| Trouble::new(Exit::Config, format!("{}: {why}", config.display()));
    match std::fs::metadata(config) {
        Ok(file) if file.is_file() && file.len() <= LARGEST_CONFIG => {}
        Ok(file) if file.is_file() => return Err(wrong("larger than 1 MiB".to_owned())),
        Ok(_) => return Err(wrong("expected a regular file".to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error.to_string())),
    }
    let text = std::fs::read_to_string(config).map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => wrong("not valid UTF-8".to_owned()),
        _ => wrong(error.to_string()),
    })?;
    let app = app_of(config, &text)
        .ok_or_else(|| wrong("has no `app`, and its directory has no name".to_owned()))?;
    if is_name(&app) { Ok(Some(app)) } else { Err(wrong(no_name(&app))) }
}

/// The text, if an app may be called so.
pub(crate) fn name(app: &str) -> Result<&str, Trouble> {
    if is_name(app) { Ok(app) } else { Err(Trouble::usage(no_name(app))) }
}

/// Names of apps: they become file names.
fn is_name(app: &str) -> bool {
    (1..=64).contains(&app.len())
        && app.starts_with(|c: char| c.is_ascii_alphanumeric())
        && app.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

fn no_name(app: &str) -> String {
    format!("`{app}` is no name of an app: expected 1 to 64 of letters, digits, `-` and `_`")
}

/// The configuration where none is named.
pub(crate) const DEFAULT_CONFIG: &str = "shiftboss.toml";
const LARGEST_CONFIG: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Cli;

    fn global(line: &[&str]) -> Global {
        let line = ["shiftboss"].iter().chain(line).chain(&["status"]);
        Cli::try_parse_from(line).unwrap().global
    }

    fn find(line: &[&str], config: &Path, running: &[&str]) -> Result<PathBuf, Trouble> {
        let socket_of = |app: &str| PathBuf::from(format!("/run/{app}.sock"));
        socket_for(&global(line), config, socket_of, || running.iter().map(PathBuf::from).collect())
    }

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::Builder::new().prefix("shop").tempdir().unwrap();
        let path = folder.path().join("shiftboss.toml");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn the_command_line_comes_before_the_configuration() {
        let (_folder, config) = file("app = \"shop\"\n");
        assert_eq!(find(&["--socket", "/x.sock"], &config, &[]).unwrap(), Path::new("/x.sock"));
        assert_eq!(find(&["--app", "mail"], &config, &[]).unwrap(), Path::new("/run/mail.sock"));
        assert_eq!(find(&[], &config, &["/run/other.sock"]).unwrap(), Path::new("/run/shop.sock"));
    }

    #[test]
    fn a_file_that_is_broken_further_down_still_names_its_app() {
        let (_folder, config) = file("# app = \"no\"\napp='shop' # here\n[broker.api\napp = \"other\"");
        assert_eq!(find(&[], &config, &[]).unwrap(), Path::new("/run/shop.sock"));
    }

    #[test]
    fn the_name_is_read_as_a_run_reads_it() {
        let texts = [
            "\u{feff}app = \"shop\"",
            "\"app\" = \"shop\"",
            "'app'='''shop'''",
            "upgrade = \"\"\"\napp = \"other\"\n\"\"\"\napp = \"\\u0073hop\"",
            // With a mistake further down.
            "\u{feff}app = \"shop\"\n[broker.api",
            "\"app\" = \"shop\"\n[broker.api",
        ];
        for text in texts {
            let (_folder, config) = file(text);
            assert_eq!(find(&[], &config, &[]).unwrap(), Path::new("/run/shop.sock"), "{text}");
        }
    }

    #[test]
    fn a_directory_is_called_so_also_by_way_of_others() {
        let folder = tempfile::tempdir().unwrap();
        let sub = folder.path().join("shop/sub");
        std::fs::create_dir_all(&sub).unwrap();
        std::fs::write(folder.path().join("shop/shiftboss.toml"), "[broker.api]\n").unwrap();
        assert_eq!(find(&[], &sub.join("../shiftboss.toml"), &[]).unwrap(), Path::new("/run/shop.sock"));
    }

    #[test]
    fn a_file_without_a_name_is_the_app_of_its_directory() {
        let folder = tempfile::tempdir().unwrap();
        let shop = folder.path().join("shop");
        std::fs::create_dir(&shop).unwrap();
        std::fs::write(shop.join("shiftboss.toml"), "[broker.api]\napp = \"api\"\n").unwrap();
        assert_eq!(find(&[], &shop.join("shiftboss.toml"), &[]).unwrap(), Path::new("/run/shop.sock"));
    }

    #[test]
    fn without_a_file_the_only_app_is_meant() {
        let none = Path::new("/nonexistent/shiftboss.toml");
        assert_eq!(find(&[], none, &["/run/mail.sock"]).unwrap(), Path::new("/run/mail.sock"));
        assert_eq!(find(&[], none, &[]).unwrap_err().exit, Exit::NoApp);
        let several = find(&[], none, &["/run/shop.sock", "/run/mail.sock"]).unwrap_err();
        assert_eq!((several.exit, several.error.as_str()), (Exit::Usage, "several apps answer: mail, shop"));
    }

    #[test]
    fn a_socket_file_that_nobody_serves_does_not_answer() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("shop.sock");
        assert!(!answers(&socket));
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(answers(&socket));
        drop(listener);
        assert!(!answers(&socket));
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let missing = find(&["-c", "/nonexistent/x.toml"], Path::new("x"), &["/run/mail.sock"]).unwrap_err();
        assert_eq!((missing.exit, missing.error.as_str()), (Exit::Config, "there is no /nonexistent/x.toml"));
    }

    #[test]
    fn a_name_cannot_lead_out_of_the_sockets_directory() {
        assert_eq!(find(&["--app", "../x"], Path::new("x"), &[]).unwrap_err().exit, Exit::Usage);
        let (_folder, config) = file("app = \"../x\"");
        assert_eq!(find(&[], &config, &[]).unwrap_err().exit, Exit::Config);
    }
}
