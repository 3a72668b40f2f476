//! A worker for the tests: what it does is its first argument.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use shiftboss::{App, Message, Worker, WorkerContext};

struct Fixture {
    role: String,
}

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

impl Worker for Fixture {
    async fn init(&mut self, context: &WorkerContext) -> Result<()> {
        match self.role.as_str() {
            "talks" => {
                context.on_call(|question| question.parse::<i64>().map(|number| number * number));
                context.send(&json!({ "here": "is some information" }))?;
                context.send(&json!({ "type": "ops", "load": 0.5 }))?;
            }
            "leaves" => {
                for number in 0..100 {
                    context.send(&number)?;
                }
                std::process::exit(0);
            }
            "fails" => return Err("it has no database".into()),
            _ => {}
        }
        Ok(())
    }

    async fn message(&mut self, context: &WorkerContext, message: Message) {
        match message.get() {
            "\"exit 0\"" => std::process::exit(0),
            "\"exit 3\"" => std::process::exit(3),
            "\"ask\"" => {
                let answer = context.call::<_, String>("who are you?").await;
                let _ = context.send(&answer.unwrap_or_else(|error| error.to_string()));
            }
            "\"name\"" => {
                let name = std::fs::read_to_string("/proc/thread-self/comm").unwrap_or_default();
                let _ = context.send(name.trim_end());
            }
            _ => drop(context.send(&json!({ "echo": message.get() }))),
        }
    }

    async fn prepare_for_shutdown(&mut self, context: &WorkerContext) {
        let _ = context.send("preparing");
        if self.role == "stays" {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    }
}

fn main() -> ExitCode {
    let role = std::env::args().nth(1).unwrap_or_default();
    let app = App::new("fixture");
    if role == "garbles" {
        let garbage = "yes '{oops' | head -n 20 >&$SHIFTBOSS_CHANNEL_FD";
        let _ = std::process::Command::new("sh").args(["-c", garbage]).status();
    }
    shiftboss::work(&app, Fixture { role })
}
