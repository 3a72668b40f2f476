//! Sentry: reports become events, sent in the background by a client of our own. The process-wide client of the crate
//! `sentry`, its hub and its panic hook are left to the program.

use std::fmt;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use sentry::integrations::{backtrace, contexts};
use sentry::protocol::{Event, Exception, Level, Map};
use sentry::transports::UreqHttpTransportOptions;
use sentry::{Client, ClientOptions, Transport, TransportFactory, TransportOptions};

use super::report::Told;
use super::{AppError, Inner};

/// Where reports are sent, and as what.
#[derive(Clone, Default)]
#[must_use]
pub struct SentryOptions {
    dsn: Option<String>,
    release: Option<String>,
}

impl SentryOptions {
    /// All from the environment of the process: nothing is sent unless it has the variable `SENTRY_DSN`.
    pub fn new() -> Self {
        SentryOptions::default()
    }

    /// The project's address, as Sentry shows it; instead of `SENTRY_DSN`. An empty one sends nothing.
    pub fn dsn(mut self, dsn: impl Into<String>) -> Self {
        self.dsn = Some(dsn.into());
        self
    }

    /// The program's version, like "shop@1.2.0"; instead of `SENTRY_RELEASE`.
    pub fn release(mut self, release: impl Into<String>) -> Self {
        self.release = Some(release.into());
        self
    }
}

impl fmt::Debug for SentryOptions {
    /// Without the DSN.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SentryOptions").field("release", &self.release).finish_non_exhaustive()
    }
}

/// The way to one project.
pub(super) struct Sentry {
    client: Arc<Client>,
    tags: Map<String, String>,
}

impl Sentry {
    /// None if there is no DSN.
    pub(super) fn new(
        options: SentryOptions,
        app: &str,
        environment: &str,
        worker_type: &str,
    ) -> Result<Option<Self>, AppError> {
        let variable = super::builder::variable;
        let dsn = options.dsn.or_else(|| variable("SENTRY_DSN")).filter(|dsn| !dsn.is_empty());
        let Some(dsn) = dsn else { return Ok(None) };
        let dsn =
            dsn.parse().map_err(|error: sentry::types::ParseDsnError| AppError::Dsn(error.to_string()))?;
        let mut client = ClientOptions::new()
            .environment(environment.to_owned())
            .maybe_release(options.release.or_else(|| variable("SENTRY_RELEASE")))
            .default_integrations(false)
            .transport(Post)
            .add_integration(contexts::ContextIntegration::new())
            .add_integration(backtrace::ProcessStacktraceIntegration::new());
        client.dsn = Some(dsn);
        let tags = [("app", app), ("worker_type", worker_type)];
        let tags = tags.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Ok(Some(Sentry { client: Arc::new(Client::from(client)), tags }))
    }

    /// The event of a report, which learns its id.
    pub(super) fn event(&self, told: &mut Told<'_>) -> Event<'static> {
        let report = &told.report;
        // Sentry wants the innermost first.
        let exceptions = report.causes.iter().rev().map(|cause| Exception {
            ty: cause.kind.clone(),
            value: Some(cause.text.clone()),
            ..Exception::default()
        });
        let mut exceptions: Vec<Exception> = exceptions.collect();
        let stacktrace = backtrace::current_stacktrace();
        let mut event = Event {
            level: if told.kind == Inner::PANIC { Level::Fatal } else { Level::Error },
            message: Some(report.title().to_owned()),
            culprit: Some(told.place.clone()),
            tags: self.tags.clone(),
            extra: report.context.clone().into_iter().collect(),
            ..Event::default()
        };
        match exceptions.last_mut() {
            Some(outermost) => outermost.stacktrace = stacktrace,
            None => event.stacktrace = stacktrace,
        }
        event.exception = exceptions.into();
        told.event_id = Some(event.event_id.simple().to_string());
        event
    }

    /// Queues an event; one is lost if many wait already.
    pub(super) fn send(&self, event: Event<'static>) {
        self.client.capture_event(event, None);
    }

    pub(super) fn flush(&self, at_most: Duration) -> bool {
        let client = Arc::clone(&self.client);
        within(at_most, move || client.flush(Some(at_most)))
    }
}

impl Drop for Sentry {
    fn drop(&mut self) {
        let client = Arc::clone(&self.client);
        within(AT_LAST, move || client.close(Some(AT_LAST)));
    }
}

/// Waits for what the client does, which may hang however little time it is given: until the thread that sends is done
/// with what it sends. Then it is left to itself.
fn within(at_most: Duration, work: impl FnOnce() -> bool + Send + 'static) -> bool {
    let (done, wait) = mpsc::channel();
    let work = move || {
        // Nobody waits any more for what took too long.
        let _ = done.send(work());
    };
    let thread = std::thread::Builder::new().name("sentry-flush".to_owned()).spawn(work);
    thread.is_ok() && wait.recv_timeout(at_most).unwrap_or(false)
}

/// Sends by HTTP, and gives up on a server that does not answer.
struct Post;

impl TransportFactory for Post {
    fn create_transport_with_options(&self, options: TransportOptions) -> Arc<dyn Transport> {
        let agent = ureq::Agent::config_builder().timeout_global(Some(ANSWER)).build().new_agent();
        Arc::new(UreqHttpTransportOptions::from(options).with_agent(agent).build())
    }
}

const AT_LAST: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(10);
