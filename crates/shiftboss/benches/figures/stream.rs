//! One worker sends as much as it can, and a subscriber parses it.

use shiftboss::{App, Broker, BrokerEvent, BrokerOptions, WorkerContext};

use crate::Done;
use crate::hundred::{Count, Hundred};

pub(crate) fn take(app: &App, how: &str, expected: u64) -> Done {
    let broker = Broker::start(app, "sender", BrokerOptions::default())?;
    let mut happens = broker.subscribe();
    broker.resume_workers().wait()?;
    broker.broadcast(how).wait()?;
    let mut count = Count::to(expected);
    while let Some(event) = happens.blocking_recv() {
        let BrokerEvent::WorkerMessage { message, .. } = event else { continue };
        if let Some(rate) = count.take(&message.parse()?) {
            println!("{rate}");
            break;
        }
    }
    app.stop(false);
    app.wait()?;
    Ok(())
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
