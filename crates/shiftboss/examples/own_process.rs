//! A program whose workers outlive it: run it, `kill -9` the second of its two processes, and look on.
//!
//! `cargo run -p shiftboss --example own_process -- /tmp/example.sock sleep 1000`

use std::path::PathBuf;

use shiftboss::log::{Line, Log};
use shiftboss::{AppOptions, BrokerOptions, OwnProcess, Setting};
use shiftboss_api::Event;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // First of all: in the keeper this does not return.
    let own: OwnProcess = shiftboss::own_process()?;
    let log = Box::new(Print);
    if own.goes_on() {
        return Ok(shiftboss::go_on(own, log)?);
    }
    let mut words = std::env::args().skip(1);
    let socket = PathBuf::from(words.next().ok_or("usage: own_process SOCKET CMD...")?);
    let mut sleepers = BrokerOptions::new(words);
    sleepers.workers = 2;
    let brokers = vec![("sleepers".to_owned(), sleepers)];
    let options = AppOptions { app: "example".to_owned(), brokers, upgrade: Default::default() };
    let setting = Setting { socket, environment: "default".to_owned(), trace: None };
    Ok(shiftboss::begin(own, &options, &setting, log)?)
}

struct Print;

impl Log for Print {
    fn event(&mut self, event: &Event) {
        println!("{} {:?} {:?}", event.seq, event.event, event.pid);
    }

    fn line(&mut self, line: &Line<'_>) {
        println!("{}: {}", line.worker, line.text);
    }

    fn note(&mut self, text: &str) {
        println!("{text}");
    }
}
