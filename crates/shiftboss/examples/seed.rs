//! One program that is the broker and its workers.
//!
//! `cargo run -p shiftboss --example seed`, then Ctrl-C.

use std::error::Error;
use std::process::ExitCode;

use serde_json::json;
use shiftboss::{App, Broker, BrokerOptions, Report, Worker, WorkerContext};

struct MyWorker;

impl Worker for MyWorker {
    async fn init(&mut self, _: &WorkerContext) -> Result<(), Box<dyn Error + Send + Sync>> {
        println!("Start the server here...");
        Ok(())
    }

    async fn prepare_for_shutdown(&mut self, _: &WorkerContext) {
        println!("Stop the server here...");
    }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let config = json!({ "apiBroker": { "workerCount": 1, "recycleRate": 0 } });
    let app = App::builder("seed").config(config).own_process().build()?;

    match shiftboss::worker_type().as_deref() {
        // The broker: its workers are this very program.
        None => {
            let workers = app.config_at("apiBroker.workerCount")?;
            let _api = Broker::start(&app, "api", BrokerOptions { workers, ..BrokerOptions::default() })?;
            app.wait()?;
            Ok(ExitCode::SUCCESS)
        }
        Some("api") => Ok(shiftboss::work(&app, MyWorker)),
        Some(other) => {
            app.report(Report::new("Unknown worker started").context("workerType", other));
            Ok(ExitCode::FAILURE)
        }
    }
}
