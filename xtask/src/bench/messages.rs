//! Rows `messages` and `messages-kept`: messages of a hundred bytes from one worker to a subscriber that parses them. The
//! baselines: a blocking reader of a socket pair that does the same, and Node's own primary. Kept: in a broker process
//! under a keeper, which looks at messages before it takes them.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Bench;
use super::figure::{Figure, Reach};
use super::stats::median;
use crate::workspace::output;

pub(super) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let (one, many) = rates(bench, "own")?;
    let mut figures = vec![
        Figure::beside("one by one, thousand/s", "", one.0, one.1, Reach::AtLeastTimes(0.7)),
        Figure::beside("many at once, thousand/s", "", many.0, many.1, Reach::Shown),
    ];
    match node(bench)? {
        Some(node) => {
            figures.push(Figure::beside("one by one / Node", "", node, one.1, Reach::Shown));
            figures.push(Figure::beside("many at once / Node", "", node, many.1, Reach::AtLeastTimes(5.0)));
        }
        None => eprintln!("there is no node: nothing to compare with"),
    }
    Ok(figures)
}

pub(super) fn kept(bench: &Bench) -> Result<Vec<Figure>> {
    let (one, many) = rates(bench, "kept")?;
    Ok(vec![
        Figure::beside("one by one, thousand/s", "", one.0, one.1, Reach::Shown),
        Figure::beside("many at once, thousand/s", "", many.0, many.1, Reach::Shown),
    ])
}

/// One by one and many at once, each by hand and by a broker, in thousands a second.
fn rates(bench: &Bench, kept: &str) -> Result<((f64, f64), (f64, f64))> {
    let count = bench.times(500_000, 50_000).to_string();
    let by_hand = |how| ["stream-by-hand", how, &count];
    let by_broker = |how| ["stream", how, kept, &count];
    let roles: [&[&str]; 4] = [&by_hand("one"), &by_broker("one"), &by_hand("many"), &by_broker("many")];
    let rates = bench.figures.medians(roles, bench.times(7, 1))?;
    let [one, our_one, many, our_many] = rates.map(in_thousands);
    Ok(((one, our_one), (many, our_many)))
}

fn in_thousands(rate: f64) -> f64 {
    (rate / 1000.0).round()
}

/// The same by `cluster`, whose worker waits when it is told to; none if there is no Node.
fn node(bench: &Bench) -> Result<Option<f64>> {
    if Command::new("node").arg("--version").output().is_err() {
        return Ok(None);
    }
    let folder = tempfile::Builder::new().prefix("bench-").tempdir().context("cannot make a folder")?;
    let program = folder.path().join("primary.js");
    fs::write(&program, NODE).context("cannot write a program")?;
    let mut rates = Vec::new();
    for _ in 0..bench.times(3, 1) {
        let mut command = Command::new("node");
        command.arg(&program).env("COUNT", bench.times(300_000, 30_000).to_string());
        rates.push(String::from_utf8(output(&mut command)?)?.trim().parse()?);
    }
    Ok(Some(in_thousands(median(&rates))))
}

const NODE: &str = r#"
const cluster = require("node:cluster");
const count = Number(process.env.COUNT);
if (cluster.isPrimary) {
    let seen = 0, begun;
    cluster.fork().on("message", (message) => {
        if (message.number !== 1000000 + seen) throw new Error("out of order");
        begun ??= process.hrtime.bigint();
        if (++seen === count) {
            console.log((count - 1) / (Number(process.hrtime.bigint() - begun) / 1e9));
            process.exit();
        }
    });
} else {
    const text = ".".repeat(72);
    let number = 0;
    const go = () => {
        while (number < count) {
            const message = { number: 1000000 + number++, text };
            // What waits is no message lost: it is written before the callback.
            if (!process.send(message, undefined, {}, () => {})) return setImmediate(go);
        }
    };
    go();
}
"#;
