//! One worker sends as much as it can, and a subscriber parses it.

use rustix::time::{ClockId, clock_gettime};
use shiftboss::{App, Broker, BrokerEvent, BrokerOptions, WorkerContext};

use crate::Done;
use crate::hundred::{Count, Hundred};

pub(crate) fn take(app: &App, how: &str, expected: u64) -> Done {
    let broker = Broker::start(app, "sender", BrokerOptions::default())?;
    let mut happens = broker.subscribe();
    broker.resume_workers().wait()?;
    broker.broadcast(how).wait()?;
    let mut count = Count::to(expected);
    let mut cpu_before = None;
    while let Some(event) = happens.blocking_recv() {
        let BrokerEvent::WorkerMessage { message, .. } = event else { continue };
        let cpu_before = *cpu_before.get_or_insert_with(cpu_us);
        if let Some(rate) = count.take(&message.parse()?) {
            println!("{rate}\n{}", (cpu_us() - cpu_before) / expected as f64);
            break;
        }
    }
    app.stop(false);
    app.wait()?;
    Ok(())
}

/// CPU time of this process so far.
fn cpu_us() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

pub(crate) fn send(context: &WorkerContext, how: &str, expected: u64) -> Done {
    let mut messages = context.messages().ok_or("taken twice")?;
    context.ready()?;
    messages.blocking_recv().ok_or("nobody says when to begin")?;
    match how {
        "one" => (0..expected).try_for_each(|number| context.send(&Hundred::new(number)))?,
        _ => context.send_all((0..expected).map(Hundred::new))?,
    }
    context.wait_until_leaving();
    Ok(())
}
