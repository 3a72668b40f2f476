//! An HTTP service of several processes on one socket, which no change of shift closes.
//!
//! `cargo run -p shiftboss --example http`, then `curl localhost:3000` and `shiftboss --app http recycle --all`.

use std::error::Error;
use std::process::ExitCode;

use axum::Router;
use axum::routing::get;
use shiftboss::{App, Broker, BrokerOptions, Worker, WorkerContext};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

#[derive(Default)]
struct Web {
    server: Option<JoinHandle<std::io::Result<()>>>,
}

impl Worker for Web {
    async fn init(&mut self, context: &WorkerContext) -> Result<(), Box<dyn Error + Send + Sync>> {
        let listener = context.listener("web").await?.ok_or("the broker has no listener `web`")?;
        let (id, counted, leaving) = (context.id(), context.clone(), context.clone());
        let hello = move || async move {
            let _busy = counted.busy();
            counted.count("requests", 1);
            format!("hello from worker {id}\n")
        };
        let routes = Router::new().route("/", get(hello));
        let server = axum::serve(TcpListener::from_std(listener.into_tcp()?)?, routes)
            .with_graceful_shutdown(async move { leaving.leaving().await });
        self.server = Some(tokio::spawn(server.into_future()));
        Ok(())
    }

    async fn prepare_for_shutdown(&mut self, _: &WorkerContext) {
        // It accepts no more since it is to leave; what it has it finishes.
        if let Some(server) = self.server.take() {
            let _ = server.await;
        }
    }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let app = App::builder("http").own_process().build()?;
    if shiftboss::worker_type().is_some() {
        return Ok(shiftboss::work(&app, Web::default()));
    }
    let address = std::env::args().nth(1).unwrap_or_else(|| "tcp://127.0.0.1:3000".to_owned());
    let mut options = BrokerOptions { workers: 4, ..BrokerOptions::default() };
    options.listen = vec![shiftboss::address::Listen::new("web", &address)?];
    let web = Broker::start(&app, "web", options)?;
    web.resume_workers().wait()?;
    println!("ready");
    app.wait()?;
    Ok(ExitCode::SUCCESS)
}
