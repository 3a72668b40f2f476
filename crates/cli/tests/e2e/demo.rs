//! The demo shows what it promises.

use std::process::Command;

use serde_json::Value;

use crate::app::*;
use crate::trace;

#[test]
fn every_act_of_the_demo_holds() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(BIN);
    command.args(["demo", "--seconds", "34", "--json"]);
    trace::record(&mut command, folder.path());
    let output = command.output().unwrap();
    let said: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    assert!(output.status.success() && said["held"] == true, "{said}\n{}", text(&output.stderr));
    trace::promises_are_kept(folder.path());
}
