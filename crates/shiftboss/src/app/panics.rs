//! Panics: reported like everything else, then the process ends.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{App, Inner, Report};

impl App {
    /// Reports every panic from now on, then ends the process with code 1: message, place and thread, and if
    /// `RUST_BACKTRACE` asks for one the backtrace. It is written to standard error even while `SILENCE_REPORTS` is
    /// set, and given 2 s to reach Sentry.
    ///
    /// This is for the whole process and takes the place of the panic hook: also a panic that somebody would have
    /// caught ends the process. Once the app is gone, the hook that was there before is asked again.
    pub fn report_panics(&self) {
        let app = Arc::downgrade(&self.inner);
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| match Weak::upgrade(&app) {
            Some(app) => end(&App { inner: app }, panic),
            None => before(panic),
        }));
    }
}

fn end(app: &App, panic: &PanicHookInfo<'_>) {
    let message = text_of(panic.payload());
    let place = panic.location().map_or("an unknown place".to_owned(), |place| {
        format!("{}:{}:{}", place.file(), place.line(), place.column())
    });
    let thread = std::thread::current();
    let mut report = Report::new(message).context("thread", thread.name().unwrap_or("unnamed"));
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        report = report.context("backtrace", backtrace.to_string());
    }
    app.inner.tell(Inner::PANIC, report, place, true);
    let _ = app.flush(LAST_WORDS);
    std::process::exit(1);
}

/// What a panic says, if it is a text as it mostly is.
pub(super) fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("(a value that is no text)").to_owned()
}

impl Inner {
    /// The kind of report that a panic is.
    pub(super) const PANIC: &'static str = "panic";
}

const LAST_WORDS: Duration = Duration::from_secs(2);
