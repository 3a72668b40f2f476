//! One question after the other, each answered before the next.

use std::time::{Duration, Instant};

use shiftboss::{App, Broker, BrokerOptions, WorkerContext};

use crate::Done;

pub(crate) fn ask(app: &App, times: u32) -> Done {
    let broker = Broker::start(app, "answerer", BrokerOptions::default())?;
    broker.resume_workers().wait()?;
    let member = broker.workers().wait()?.pop().ok_or("there is no worker")?;
    let mut samples = Vec::new();
    for number in 0..times {
        let begun = Instant::now();
        let answer: String = member.call(&question(number)).wait()?;
        samples.push(begun.elapsed());
        assert_eq!(answer, question(number));
    }
    app.stop(false);
    app.wait()?;
    print_median(samples);
    Ok(())
}

pub(crate) fn answer(context: &WorkerContext) -> Done {
    context.on_call(|question| question.parse::<String>());
    context.ready()?;
    context.wait_until_leaving();
    Ok(())
}

pub(crate) fn question(number: u32) -> String {
    format!("what becomes of {number:08}?")
}

/// In microseconds.
pub(crate) fn print_median(mut samples: Vec<Duration>) {
    samples.sort_unstable();
    println!("{}", samples[samples.len() / 2].as_secs_f64() * 1e6);
}
