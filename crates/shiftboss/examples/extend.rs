//! What a program can put between: a smoke test that every new worker has to pass, a launcher of its own, a subscriber that
//! acts.
//!
//! `cargo run -p shiftboss --example extend`

use std::error::Error;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};

use shiftboss::{
    App, AskError, Broker, BrokerEvent, BrokerOptions, Execution, Extensions, Hooks, Launcher, Worker,
    WorkerContext, WorkerInfo,
};

/// Answers the smoke test.
struct Api;

impl Worker for Api {
    async fn init(&mut self, context: &WorkerContext) -> Result<(), Box<dyn Error + Send + Sync>> {
        let colour = std::env::var("COLOUR").unwrap_or_default();
        context.on_call(move |_| Ok::<_, String>(colour.clone()));
        Ok(())
    }
}

/// Asks every new worker for its colour; whoever does not know one does not serve.
struct SmokeTest {
    broker: Arc<OnceLock<Broker>>,
    is_strict: Arc<AtomicBool>,
}

impl Hooks for SmokeTest {
    fn after_ready(&self, new: &WorkerInfo) -> Result<(), String> {
        // The first worker may be quicker than the broker's handle.
        let broker = self.broker.wait();
        let answers = broker.call_all::<_, String>("colour?").wait();
        let own = answers.into_iter().find(|(worker, _)| worker.id() == new.id);
        let colour = own.ok_or("it is gone")?.1.map_err(|error| error.to_string())?;
        if self.is_strict.load(Ordering::Relaxed) {
            Err(format!("{colour} is out of fashion"))
        } else {
            Ok(())
        }
    }

    fn before_retire(&self, old: &WorkerInfo, new: &WorkerInfo) -> Result<(), String> {
        println!("worker {} makes way for worker {}", old.id, new.id);
        Ok(())
    }
}

/// Gives every worker one more variable.
struct Painter;

impl Launcher for Painter {
    fn prepare(&self, _: &WorkerInfo, execution: &mut Execution) -> Result<(), String> {
        execution.environment.insert("COLOUR".to_owned(), "green".to_owned());
        Ok(())
    }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let app = App::new("extend");
    if shiftboss::worker_type().is_some() {
        return Ok(shiftboss::work(&app, Api));
    }
    let (handle, is_strict) = (Arc::new(OnceLock::new()), Arc::new(AtomicBool::new(false)));
    let smoke_test = SmokeTest { broker: Arc::clone(&handle), is_strict: Arc::clone(&is_strict) };
    let extensions = Extensions::new().hooks(smoke_test).launcher(Painter);
    let api = Broker::start_with(&app, "api", BrokerOptions::default(), extensions)?;
    let _ = handle.set(api.clone());

    // A subscriber that acts: it counts who has ended.
    let (ended, count) = channel();
    api.on_event(move |event| {
        if let BrokerEvent::WorkerEnded(exit) = event {
            let _ = ended.send(exit.id);
        }
    });

    api.resume_workers().wait()?;
    let done = api.recycle_workers().wait()?;
    println!("recycled: {} worker, all that were asked had a colour", done.replaced);
    println!("worker {} has ended", count.recv()?);
    is_strict.store(true, Ordering::Relaxed);
    match api.recycle_workers().wait() {
        Err(AskError::Failed { reason, .. }) => println!("the recycle was stopped: the new worker {reason}"),
        other => println!("unexpected: {other:?}"),
    }
    app.stop(false);
    app.wait()?;
    Ok(ExitCode::SUCCESS)
}
