//! The demo shows what it promises.

use std::process::Command;

use serde_json::Value;

use crate::app::*;

#[test]
fn every_act_of_the_demo_holds() {
    let output = Command::new(BIN).args(["demo", "--seconds", "28", "--json"]).output().unwrap();
    let said: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    assert!(output.status.success() && said["held"] == true, "{said}\n{}", text(&output.stderr));
}
