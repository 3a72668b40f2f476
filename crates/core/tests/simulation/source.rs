//! A case as Rust: a scenario test ready to be pasted into `tests/scenarios/`.

use std::fmt::Write;
use std::time::Duration;

use shiftboss_core::id::Slot;
use shiftboss_core::spec::{Ask, BrokerSpec, Ready};
use shiftboss_core::{Command, Exit, Input, ListenFailure, Time, Verb};

use crate::shrink::Case;

pub(crate) fn test(name: &str, note: &str, case: &Case<'_>, inputs: &[(Time, Input)]) -> String {
    let mut text = String::new();
    let specs: Vec<String> = case.specs.iter().map(spec).collect();
    let (begun, seed, specs) = (case.begun.0, case.seed, specs.join(", "));
    let _ = writeln!(text, "/// {}", note.replace('\n', " "));
    let _ = writeln!(text, "#[test]\nfn {name}() {{");
    let _ = writeln!(text, "    let mut replay = Replay::of(Time({begun}), {seed}, vec![{specs}]);");
    for (now, told) in inputs {
        let _ = writeln!(text, "    replay.feed(Time({}), {});", now.0, input(told));
    }
    text.push('}');
    text
}

fn input(input: &Input) -> String {
    match input {
        Input::Tick => "Input::Tick".to_owned(),
        Input::Opened { broker, round, result } => {
            let result = match result {
                Ok(addresses) => format!("Ok(strings(&{addresses:?}))"),
                Err(ListenFailure { address, reason }) => format!(
                    "Err(ListenFailure {{ address: {address:?}.to_owned(), reason: {reason:?}.to_owned() }})"
                ),
            };
            format!("Input::Opened {{ broker: {broker:?}, round: {round}, result: {result} }}")
        }
        Input::SpawnFailed { worker, reason } => {
            format!("Input::SpawnFailed {{ worker: {worker:?}, reason: {reason:?}.to_owned() }}")
        }
        Input::Exited { worker, exit } => {
            format!("Input::Exited {{ worker: {worker:?}, exit: {} }}", self::exit(*exit))
        }
        Input::Command { request, command } => {
            format!("Input::Command {{ request: {request:?}, command: {} }}", self::command(command))
        }
        Input::Begun { spec, seed } => {
            format!("Input::Begun {{ spec: Box::new({}), seed: {seed} }}", self::spec(spec))
        }
        Input::Bound { broker, address } => {
            format!("Input::Bound {{ broker: {broker:?}, address: {address:?}.to_owned() }}")
        }
        Input::Unbound { broker, address } => {
            format!("Input::Unbound {{ broker: {broker:?}, address: {address:?}.to_owned() }}")
        }
        Input::Quiet { .. }
        | Input::Shut { .. }
        | Input::Spawned { .. }
        | Input::Ready { .. }
        | Input::Standby { .. }
        | Input::Unseen { .. }
        | Input::Spoke { .. }
        | Input::HungUp { .. }
        | Input::Garbled { .. }
        | Input::Hung { .. }
        | Input::Refused { .. }
        | Input::Window { .. }
        | Input::Changed { .. }
        | Input::Stop { .. } => format!("Input::{input:?}"),
    }
}

fn exit(exit: Exit) -> String {
    format!("Exit::{exit:?}")
}

fn command(command: &Command) -> String {
    match command {
        Command::Stop => "Command::Stop".to_owned(),
        Command::Broker(broker, verb) => format!("Command::Broker({broker:?}, {})", self::verb(verb)),
    }
}

fn verb(verb: &Verb) -> String {
    match verb {
        Verb::Recycle(None) => "Verb::Recycle(None)".to_owned(),
        Verb::Recycle(Some(Slot(slot))) => format!("Verb::Recycle(Some(Slot({slot})))"),
        Verb::Drain => "Verb::Drain".to_owned(),
        Verb::Resume => "Verb::Resume".to_owned(),
        Verb::ResumeNow => "Verb::ResumeNow".to_owned(),
        Verb::Scale(workers) => format!("Verb::Scale({workers})"),
        Verb::Respecify(spec) => format!("Verb::Respecify(Box::new({}))", self::spec(spec)),
    }
}

fn spec(spec: &BrokerSpec) -> String {
    let BrokerSpec { name, workers, launch, listens, ready, recycle, stop, backoff, .. } = spec;
    let BrokerSpec { drained, scheduled, watch, standby, .. } = spec;
    let watch = watch.map_or("None".to_owned(), |wait| format!("Some({})", duration(wait)));
    let ready = match ready {
        Ready::Notify => "Ready::Notify".to_owned(),
        Ready::Accepting => "Ready::Accepting".to_owned(),
        Ready::Listening => "Ready::Listening".to_owned(),
        Ready::After(wait) => format!("Ready::After({})", duration(*wait)),
    };
    let every = recycle.every.map_or("None".to_owned(), |every| format!("Some({})", duration(every)));
    let rungs: Vec<String> = stop
        .0
        .iter()
        .map(|rung| match rung.ask {
            Ask::Notice => format!("Rung::notice({})", duration(rung.wait)),
            Ask::Signal(signal) => format!("Rung::signal({signal:?}, {})", duration(rung.wait)),
        })
        .collect();
    format!(
        "BrokerSpec {{ name: {name:?}.to_owned(), workers: {workers}, launch: {launch:?}, listens: {listens}, \
         ready: {ready}, recycle: RecycleSpec {{ every: {every}, jitter: {:?}, surge: {}, unavailable: {}, \
         min_ready: {}, deadline: {} }}, stop: StopLadder(vec![{}]), backoff: BackoffSpec {{ base: {}, cap: {}, \
         healthy_after: {} }}, drained: Drained::{drained:?}, scheduled: {scheduled}, watch: {watch}, standby: {standby} }}",
        recycle.jitter,
        recycle.surge,
        recycle.unavailable,
        duration(recycle.min_ready),
        duration(recycle.deadline),
        rungs.join(", "),
        duration(backoff.base),
        duration(backoff.cap),
        duration(backoff.healthy_after),
    )
}

fn duration(duration: Duration) -> String {
    format!("Duration::from_nanos({})", duration.as_nanos())
}
