//! Workers that say three things and are gone: all of it is heard, and before the news of their end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use shiftboss::options::BackoffSpec;
use shiftboss::{App, Broker, BrokerEvent, BrokerOptions, WorkerContext};

use crate::Done;

pub(crate) fn count(app: &App, wanted: u64, workers: u32) -> Done {
    let soon = Duration::from_millis(1);
    let backoff = BackoffSpec { base: soon, cap: soon, ..BackoffSpec::default() };
    let options = BrokerOptions { workers, backoff, ..BrokerOptions::default() };
    let broker = Broker::start(app, "hasty", options)?;
    let mut happens = broker.subscribe();
    let begun = Instant::now();
    // Of those who have not ended: which of the three have come.
    let mut heard: BTreeMap<String, u8> = BTreeMap::new();
    let (mut exits, mut messages, mut lost, mut late) = (0, 0, 0, 0);
    while exits < wanted
        && begun.elapsed() < AT_MOST
        && let Some(event) = happens.blocking_recv()
    {
        match event {
            BrokerEvent::WorkerMessage { message, .. } => {
                let (worker, number): (String, u8) = message.parse()?;
                messages += 1;
                match heard.get_mut(&worker) {
                    Some(of_worker) => *of_worker |= 1 << number,
                    None if number == 0 => drop(heard.insert(worker, 1)),
                    None => late += 1,
                }
            }
            BrokerEvent::WorkerEnded(exit) | BrokerEvent::WorkerDeath(exit) => {
                exits += 1;
                let of_worker = heard.remove(&exit.id).unwrap_or(0);
                let missing = u64::from(SAID - of_worker.count_ones());
                if missing > 0 && lost < 10 {
                    eprintln!("{exit:?}: {missing} of {SAID} missing");
                }
                lost += missing;
            }
            _ => {}
        }
    }
    println!("{exits} {messages} {lost} {late} {}", begun.elapsed().as_secs_f64());
    app.stop(true);
    app.wait()?;
    Ok(())
}

pub(crate) fn send(context: &WorkerContext) -> Done {
    let id = context.id();
    for number in 0..SAID {
        context.send(&(&id, number))?;
    }
    std::process::exit(0);
}

const SAID: u32 = 3;
const AT_MOST: Duration = Duration::from_secs(300);
