//! A worker for the tests: what it does is its first argument.

use std::error::Error;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::json;
use shiftboss::{
    App, Broker, BrokerEvent, BrokerOptions, Execution, Extensions, Hooks, Launcher, Message, Worker,
    WorkerContext, WorkerInfo,
};

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
            "opens" => {
                context.listener("web").await?.ok_or("there is no listener")?;
                context.send(&json!({ "open": context.slot() }))?;
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
            "\"ask briefly\"" => {
                let answer = context.call::<_, String>("at once?").within(Duration::from_millis(20)).await;
                let _ = context.send(&answer.unwrap_or_else(|error| error.to_string()));
            }
            "\"slot\"" => drop(context.send(&context.slot())),
            "\"name\"" => {
                let name = std::fs::read_to_string("/proc/thread-self/comm").unwrap_or_default();
                let _ = context.send(name.trim_end());
            }
            file if self.role == "marks" => {
                let _ = context.send(&0);
                let _ = std::fs::write(file.trim_matches('"'), "");
            }
            broker if self.role == "keeps" => {
                while is_running(broker) && !context.is_leaving() {
                    tokio::time::sleep(Duration::from_micros(100)).await;
                }
                for number in 0..3 {
                    let _ = context.send(&number);
                }
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

/// Whether it can still hear anything.
fn is_running(process: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Tells its worker its process id, and prints that, and what it hears. With a second argument it prints that first, and
/// begins once there is such a file.
fn keep(socket: &str, begin: Option<&str>) -> ExitCode {
    let app = App::builder("fixture").control_socket(socket).own_process().build().unwrap();
    if let Some(begin) = begin {
        println!("{}", std::process::id());
        while !std::path::Path::new(begin).exists() {
            std::thread::yield_now();
        }
    }
    let broker = Broker::start(&app, "keeps", BrokerOptions::default()).unwrap();
    let mut happens = broker.subscribe();
    broker.resume_workers().wait().unwrap();
    broker.broadcast(&std::process::id()).wait().unwrap();
    println!("{}", std::process::id());
    while let Some(event) = happens.blocking_recv() {
        if let BrokerEvent::WorkerMessage { message, .. } = event {
            println!("{message}");
        }
    }
    ExitCode::SUCCESS
}

/// Prints its process id, and whether its broker is drained; drains it, and says so.
fn drain(socket: &str) -> ExitCode {
    let app = App::builder("fixture").control_socket(socket).own_process().build().unwrap();
    let broker = Broker::start(&app, "drains", BrokerOptions::default()).unwrap();
    println!("broker {} {}", std::process::id(), broker.drain_open());
    broker.drain_workers().wait().unwrap();
    println!("drained {}", broker.drain_open());
    ExitCode::from(u8::from(app.wait().is_err()))
}

/// Gives every worker one more variable.
struct Painter;

impl Launcher for Painter {
    fn prepare(&self, _: &WorkerInfo, execution: &mut Execution) -> std::result::Result<(), String> {
        execution.environment.insert("COLOUR".to_owned(), "green".to_owned());
        Ok(())
    }
}

/// Prints who is asked about, and whether it was given that; passes it once there is such a file.
struct Gate {
    file: String,
    broker: Arc<OnceLock<Broker>>,
}

impl Hooks for Gate {
    fn after_ready(&self, worker: &WorkerInfo) -> std::result::Result<(), String> {
        // The driver has done what it did before it answers.
        let _ = self.broker.wait().workers().wait();
        let pid = worker.pid;
        let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap_or_default();
        println!("asked {pid} {}", environment.split('\0').any(|entry| entry == "COLOUR=green"));
        while !std::path::Path::new(&self.file).exists() {
            std::thread::yield_now();
        }
        Ok(())
    }
}

/// Prints its process id, and that its worker is ready.
fn extend(socket: &str, file: String) -> ExitCode {
    let app = App::builder("fixture").control_socket(socket).own_process().build().unwrap();
    let handle = Arc::new(OnceLock::new());
    let gate = Gate { file, broker: Arc::clone(&handle) };
    let extensions = Extensions::new().launcher(Painter).hooks(gate);
    println!("broker {}", std::process::id());
    let broker = Broker::start_with(&app, "extends", BrokerOptions::default(), extensions).unwrap();
    let _ = handle.set(broker.clone());
    broker.resume_workers().wait().unwrap();
    println!("ready");
    ExitCode::from(u8::from(app.wait().is_err()))
}

fn main() -> ExitCode {
    let role = std::env::args().nth(1).unwrap_or_default();
    if let ("keeps", None) = (role.as_str(), shiftboss::worker_type()) {
        let more = std::env::args().nth(3);
        return keep(&std::env::args().nth(2).unwrap_or_default(), more.as_deref());
    }
    if let ("drains", None) = (role.as_str(), shiftboss::worker_type()) {
        return drain(&std::env::args().nth(2).unwrap_or_default());
    }
    if let ("extends", None) = (role.as_str(), shiftboss::worker_type()) {
        let more = std::env::args().nth(3);
        return extend(&std::env::args().nth(2).unwrap_or_default(), more.unwrap_or_default());
    }
    if role == "notifies" {
        let path = std::env::var_os("NOTIFY_SOCKET").unwrap();
        std::os::unix::net::UnixDatagram::unbound().unwrap().send_to(b"READY=1", path).unwrap();
        loop {
            std::thread::park();
        }
    }
    let app = App::new("fixture");
    if role == "garbles" {
        let garbage = "yes '{oops' | head -n 20 >&$SHIFTBOSS_CHANNEL_FD";
        let _ = std::process::Command::new("sh").args(["-c", garbage]).status();
    }
    shiftboss::work(&app, Fixture { role })
}
