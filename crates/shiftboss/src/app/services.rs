//! Services that the program needs before it is ready: connected to at the same time, each once.

use std::error::Error;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared, try_join_all};

use super::panics::text_of;
use super::{App, Inner};
use crate::worker::BoxError;

/// A service that could not be connected to. Every caller that waited for it gets the same.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot connect to the service `{service}`")]
pub struct ServiceError {
    service: String,
    source: Arc<dyn Error + Send + Sync>,
}

impl ServiceError {
    /// Under what name its connector was registered.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }
}

type Connector = Arc<dyn Fn() -> BoxFuture<'static, Result<(), BoxError>> + Send + Sync>;
type ErrorObserver = Arc<dyn Fn(&ServiceError) + Send + Sync>;
type Attempt = Shared<BoxFuture<'static, Result<(), ServiceError>>>;

/// The connectors, and how far they are.
#[derive(Default)]
pub(super) struct Services(Mutex<State>);

#[derive(Default)]
struct State {
    services: Vec<Service>,
    /// What everybody who asks now waits for. It is theirs: when the last gives up, it ends.
    connecting: Option<WeakShared<BoxFuture<'static, Result<(), ServiceError>>>>,
    ready: bool,
    on_ready: Vec<Box<dyn FnOnce() + Send>>,
    on_error: Vec<ErrorObserver>,
}

struct Service {
    name: String,
    connector: Connector,
    connected: bool,
}

impl App {
    /// Registers a service that the program needs, under a name for its errors. The connector is called by
    /// [`App::connect_to_services`], again after a failure, and no more once it has succeeded. One that is registered
    /// when the app is ready already is called by the next `connect_to_services`.
    pub fn register_service_connector<F, E>(
        &self,
        name: impl Into<String>,
        connector: impl Fn() -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let connector: Connector = Arc::new(move || connector().map(|done| done.map_err(Into::into)).boxed());
        let service = Service { name: name.into(), connector, connected: false };
        self.inner.services.lock().services.push(service);
    }

    /// Connects to all registered services at the same time, on whatever runtime it is awaited. Who asks meanwhile waits
    /// for the same result; once all are connected it returns at once. The first that fails ends the attempt, and the
    /// others that are not yet connected are dropped; the next call tries those that are left once more. Ready without
    /// any service, too.
    ///
    /// The attempt goes on while anybody awaits it, and ends with the last who does. A connector that panics has failed.
    ///
    /// # Errors
    /// [`ServiceError`] with the name of the first service that failed.
    pub async fn connect_to_services(&self) -> Result<(), ServiceError> {
        let attempt = self.inner.services.attempt(&self.inner);
        attempt.await
    }

    /// Whether all services are connected: [`App::connect_to_services`] was called and has succeeded.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.inner.services.lock().ready
    }

    /// Calls this once, when the services are connected; at once if they are. Called on the thread that awaits them.
    pub fn on_ready(&self, observer: impl FnOnce() + Send + 'static) {
        let mut state = self.inner.services.lock();
        if !state.ready {
            return state.on_ready.push(Box::new(observer));
        }
        drop(state);
        observer();
    }

    /// Calls this each time the services cannot be connected, before those who await them hear of it.
    pub fn on_error(&self, observer: impl Fn(&ServiceError) + Send + Sync + 'static) {
        self.inner.services.lock().on_error.push(Arc::new(observer));
    }
}

impl Services {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The attempt that is under way, or a new one. The app is not kept alive by it.
    fn attempt(&self, app: &Arc<Inner>) -> Attempt {
        let mut state = self.lock();
        if let Some(attempt) = state.connecting.as_ref().and_then(WeakShared::upgrade) {
            return attempt;
        }
        let left = state.services.iter().enumerate().filter(|(_, service)| !service.connected);
        let left: Vec<_> = left
            .map(|(at, service)| connect(Arc::downgrade(app), at, service.name.clone(), &service.connector))
            .collect();
        if left.is_empty() && state.ready {
            return async { Ok(()) }.boxed().shared();
        }
        let app = Arc::downgrade(app);
        let attempt = async move {
            let result = try_join_all(left).await.map(drop);
            if let Some(app) = app.upgrade() {
                app.services.finish(&result);
            }
            result
        };
        let attempt = attempt.boxed().shared();
        state.connecting = attempt.downgrade();
        attempt
    }

    fn finish(&self, result: &Result<(), ServiceError>) {
        let mut state = self.lock();
        state.connecting = None;
        match result {
            Ok(()) => {
                state.ready = true;
                let observers = std::mem::take(&mut state.on_ready);
                drop(state);
                observers.into_iter().for_each(guarded);
            }
            Err(error) => {
                let observers = state.on_error.clone();
                drop(state);
                observers.iter().for_each(|observer| guarded(|| observer(error)));
            }
        }
    }
}

/// An observer that panics keeps nobody else from being told.
fn guarded(observer: impl FnOnce()) {
    let _ = std::panic::catch_unwind(AssertUnwindSafe(observer));
}

fn connect(
    app: Weak<Inner>,
    at: usize,
    service: String,
    connector: &Connector,
) -> Pin<Box<dyn Future<Output = Result<(), ServiceError>> + Send>> {
    let connector = Arc::clone(connector);
    let connected = AssertUnwindSafe(async move { connector().await }).catch_unwind();
    Box::pin(async move {
        let failed = match connected.await {
            Ok(Ok(())) => {
                if let Some(app) = app.upgrade() {
                    app.services.lock().services[at].connected = true;
                }
                return Ok(());
            }
            Ok(Err(error)) => Arc::from(error),
            Err(panic) => {
                Arc::from(BoxError::from(format!("its connector has panicked: {}", text_of(&*panic))))
            }
        };
        Err(ServiceError { service, source: failed })
    })
}
