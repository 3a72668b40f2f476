//! Apps from a file.

use super::*;

const SHOP: &str = r#"
app = "shop"
[broker.api]
workers = 2
environment = { PASSWORD = "zqx" }
[broker.mail]
command = ["./mail"]

[settings]
password = 12345
web = { port = 3000, hosts = [] }

[env.production.broker.api]
workers = 8
[env.production.settings.web]
port = "zqxzqx"
"#;

fn file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shiftboss.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn open(path: &std::path::Path, environment: &str) -> Result<App, AppError> {
    App::builder("").environment(environment).file(path).build()
}

#[test]
fn a_file_gives_the_name_the_brokers_and_the_programs_settings_in_the_chosen_environment() {
    let (_folder, path) = file(SHOP);
    let app = open(&path, "default").unwrap();
    assert_eq!((app.name(), app.environment()), ("shop", "default"));
    assert_eq!(app.broker_types().collect::<Vec<_>>(), ["api", "mail"]);
    let api = app.broker_options("api").unwrap();
    assert_eq!((api.workers, api.command.len()), (2, 0));
    assert_eq!(app.broker_options("mail").unwrap().command, ["./mail"]);
    assert_eq!(app.broker_options("none"), None);
    assert_eq!(app.config_at::<Web>("web").unwrap(), Web { port: 3000, hosts: vec![] });
    let app = open(&path, "production").unwrap();
    assert_eq!(app.broker_options("api").unwrap().workers, 8);
    let error = app.config_at::<Web>("web").unwrap_err();
    let expected = format!("{}:16: `web.port`: invalid type: string, expected u16", path.display());
    assert_eq!(error.to_string(), expected);
    let error = app.config::<Web>().unwrap_err();
    assert_eq!(error.to_string(), format!("{}:9: missing field `port`", path.display()));
    let error = app.config_at::<String>("password").unwrap_err();
    let expected = format!("{}:10: `password`: invalid type: integer, expected a string", path.display());
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_file_without_a_broker_is_enough_for_a_program() {
    let (_folder, path) = file("app = \"shop\"\n[settings]\nport = 5\n");
    let app = open(&path, "default").unwrap();
    assert_eq!(app.config_at::<u16>("port").unwrap(), 5);
}

#[test]
fn all_mistakes_of_a_file_are_told_at_once_with_their_places() {
    let (_folder, path) = file("app = \"shop\"\nbrokr = 1\n[broker.api]\nworkers = \"zqx\"\nsurge = 1\n");
    let text = open(&path, "default").unwrap_err().to_string();
    for place in ["shiftboss.toml:2:1", "shiftboss.toml:4:11", "shiftboss.toml:5:1"] {
        assert!(text.contains(place), "{text}");
    }
    let (_folder, path) = file(SHOP);
    let text = open(&path, "staging").unwrap_err().to_string();
    assert!(text.contains("there is no environment `staging`"), "{text}");
    assert!(text.contains("it has: default,\n       production"), "{text}");
}

#[test]
fn the_environment_of_a_file_is_that_of_the_process() {
    let name = "files::the_environment_of_a_file_is_that_of_the_process";
    if is_child() {
        let (_folder, path) = file(SHOP);
        let app = App::from_file(path).unwrap();
        assert_eq!(app.broker_options("api").unwrap().workers, 8);
        return;
    }
    assert!(in_child(name, &[("env", "production")]).status.success());
    assert!(!in_child(name, &[("env", "staging")]).status.success());
}
