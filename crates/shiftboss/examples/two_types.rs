//! Two types of workers in one app, each with a broker of its own.
//!
//! `cargo run -p shiftboss --example two_types`, then Ctrl-C twice: it has no keeper, so signals are the program's.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use shiftboss::{App, Broker, BrokerEvent, BrokerOptions, Worker, WorkerContext};

/// Answers requests, if it had any.
struct Api;

/// Does one job after the other, and says so.
struct Jobs;

impl Worker for Api {}

impl Worker for Jobs {
    async fn init(&mut self, context: &WorkerContext) -> Result<(), Box<dyn Error + Send + Sync>> {
        let context = context.clone();
        tokio::spawn(async move {
            for job in 1.. {
                tokio::time::sleep(Duration::from_millis(100)).await;
                if context.send(&json!({ "type": "ops", "jobs": job })).is_err() {
                    return;
                }
            }
        });
        Ok(())
    }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let app = App::new("two-types");
    match shiftboss::worker_type().as_deref() {
        Some("api") => return Ok(shiftboss::work(&app, Api)),
        Some("jobs") => return Ok(shiftboss::work(&app, Jobs)),
        _ => {}
    }
    let api = Broker::start(&app, "api", BrokerOptions { workers: 2, ..BrokerOptions::default() })?;
    let jobs = Broker::start(&app, "jobs", BrokerOptions::default())?;
    let mut happens = jobs.subscribe();
    while let Some(event) = happens.blocking_recv() {
        if let BrokerEvent::WorkerOps { message, worker } = event {
            println!("worker {} of {}: {message}", worker.id(), jobs.worker_type());
            break;
        }
    }
    let done = api.recycle_workers().wait()?;
    println!("recycled {}: {} workers", api.worker_type(), done.replaced);
    app.stop(false);
    app.wait()?;
    println!("both brokers have ended");
    Ok(ExitCode::SUCCESS)
}
