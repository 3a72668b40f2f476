//! A program whose workers outlive it: its broker process is killed, and goes on with the same workers.
//!
//! `cargo run -p shiftboss --example keeper`; then look at its processes, and `kill -9` the second one again and again.

use std::error::Error;
use std::process::ExitCode;

use shiftboss::{App, Broker, BrokerOptions, Worker};

struct Patient;

impl Worker for Patient {}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    // First of all: in the keeper this does not return.
    let app = App::own_process("keeper")?;
    if shiftboss::worker_type().is_some() {
        return Ok(shiftboss::work(&app, Patient));
    }
    let patients = Broker::start(&app, "patient", BrokerOptions { workers: 2, ..BrokerOptions::default() })?;
    patients.resume_workers().wait()?;
    let pids: Vec<u32> = patients.workers().wait()?.iter().map(shiftboss::Member::pid).collect();
    println!("broker process {}: workers {pids:?}", std::process::id());
    app.wait()?;
    Ok(ExitCode::SUCCESS)
}
