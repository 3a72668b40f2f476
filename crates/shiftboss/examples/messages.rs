//! Messages, questions and answers, both ways.
//!
//! `cargo run -p shiftboss --example messages`

use std::error::Error;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use shiftboss::{App, Broker, BrokerEvent, BrokerOptions, Message, Worker, WorkerContext};

#[derive(Debug, Serialize, Deserialize)]
struct Greeting {
    here: String,
}

/// Greets, answers, and asks in turn.
struct Talker;

impl Worker for Talker {
    async fn init(&mut self, context: &WorkerContext) -> Result<(), Box<dyn Error + Send + Sync>> {
        context.on_call(|question| question.parse::<u64>().map(|number| number * number));
        context.send(&Greeting { here: "is some information".to_owned() })?;
        Ok(())
    }

    async fn message(&mut self, context: &WorkerContext, message: Message) {
        // Whatever it is told it passes on to the broker, as a question.
        let answer = context.call::<_, String>(&message.get()).await;
        let _ =
            context.send(&format!("the broker says: {}", answer.unwrap_or_else(|error| error.to_string())));
    }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let app = App::new("messages");
    if shiftboss::worker_type().is_some() {
        return Ok(shiftboss::work(&app, Talker));
    }
    let talkers = Broker::start(&app, "talker", BrokerOptions { workers: 2, ..BrokerOptions::default() })?;
    talkers.on_call(|question, worker| {
        Ok::<_, String>(format!(
            "{} to worker {}",
            question.parse::<String>().unwrap_or_default(),
            worker.id()
        ))
    });
    let mut happens = talkers.subscribe();
    let mut greeted = 0;
    while greeted < 2 {
        if let Some(BrokerEvent::WorkerMessage { message, worker }) = happens.blocking_recv() {
            let greeting: Greeting = message.parse()?;
            println!("worker {}: {}", worker.id(), greeting.here);
            greeted += 1;
        }
    }
    for (worker, square) in talkers.call_all::<_, u64>(&12).wait() {
        println!("worker {} squares 12: {}", worker.id(), square?);
    }
    let told = talkers.broadcast("hello").wait()?;
    println!("told {told} workers");
    let mut heard = 0;
    while heard < told {
        if let Some(BrokerEvent::WorkerMessage { message, .. }) = happens.blocking_recv() {
            println!("{}", message.parse::<String>()?);
            heard += 1;
        }
    }
    app.stop(false);
    app.wait()?;
    Ok(ExitCode::SUCCESS)
}
