//! An event as a line for people.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use shiftboss_api::{Event, MessageEvent, MessageName};

use crate::output::{BAD, BUSY, GOOD, Look};
use crate::text;

/// "14:21:58 api    worker_death   #3 slot 2 pid 130 SIGKILL  reason".
pub(crate) fn human(event: &Event, name_width: usize, zone: &TimeZone, look: Look) -> String {
    let at = event.at.parse::<Timestamp>().ok();
    let at =
        at.map_or_else(|| event.at.clone(), |at| at.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string());
    let name = event.broker.as_deref().unwrap_or("");
    let word = format!("{:EVENT$}", event.event.as_str());
    let mut line = format!("{at} {name:name_width$} {}", look.paint(&word, style(event)));
    for fact in facts(event) {
        line.push(' ');
        line.push_str(&fact);
    }
    if let Some(reason) = &event.reason {
        line.push_str("  ");
        line.push_str(&text::clean(reason));
    }
    line.trim_end().to_owned()
}

/// "14:21:58.123  api/0  message  {"queue":7}", on a terminal no wider than that.
pub(crate) fn message(said: &MessageEvent, zone: &TimeZone, look: Look) -> String {
    let at = said.at.parse::<Timestamp>().ok();
    let at = at
        .map_or_else(|| said.at.clone(), |at| at.to_zoned(zone.clone()).strftime("%H:%M:%S%.3f").to_string());
    let word = match said.event {
        MessageName::WorkerMessage => "message",
        MessageName::WorkerOps => "ops",
    };
    let place = said.slot.map_or("standby".to_owned(), |slot| slot.to_string());
    let line = format!("{at}  {}/{place}  {word}  ", said.broker);
    let json = said.message.get();
    if !look.redraw {
        return line + &text::clean(json);
    }
    // A little of a long message is enough.
    let left = look.width.saturating_sub(line.chars().count());
    let start: String = json.chars().take(left + 1).collect();
    line + &text::cut(&text::clean(&start), left)
}

fn facts(event: &Event) -> Vec<String> {
    let mut facts = Vec::new();
    facts.extend(event.worker.as_ref().map(|id| format!("#{id}")));
    facts.extend(event.slot.map(|slot| format!("slot {slot}")));
    facts.extend(event.pid.map(|pid| format!("pid {pid}")));
    facts.extend(event.code.map(|code| format!("exit {code}")));
    facts.extend(event.signal.clone());
    facts.extend(event.forced.then(|| "forced".to_owned()));
    facts.extend(
        event
            .ready_ms
            .map(|ms| format!("in {}", text::took(Duration::from_secs_f64((ms / 1e3).clamp(0.0, 1e9))))),
    );
    facts.extend(event.address.clone());
    facts.extend(event.wanted.map(|wanted| format!("wanted {wanted}")));
    facts.extend(event.workers.map(|workers| text::count(workers, "worker")));
    facts.extend((event.drained == Some(true)).then(|| "drained".to_owned()));
    facts.extend((event.salvaged == Some(true)).then(|| "all that was under way is given up".to_owned()));
    match (event.replaced, event.total) {
        (Some(replaced), Some(total)) => facts.push(format!("{replaced} of {total}")),
        (None, Some(total)) => facts.push(text::count(total, "worker")),
        (Some(_) | None, None) => {}
    }
    facts.extend(event.cut.filter(|cut| *cut > 0).map(|cut| format!("{cut} cut off")));
    facts.extend(event.refused.filter(|refused| *refused > 0).map(|refused| format!("{refused} reset")));
    let retry = event.retry_at.as_ref().zip(event.at.parse::<Timestamp>().ok());
    let retry = retry.and_then(|(retry, at)| text::until(retry, at));
    facts.extend(retry.map(|wait| format!("next try in {}", text::took(wait))));
    facts
}

fn style(event: &Event) -> anstyle::Style {
    use shiftboss_api::EventName as Name;
    match event.event {
        Name::WorkerDeath
        | Name::RecycleFailed
        | Name::BrokerDegraded
        | Name::ListenerFailed
        | Name::ConfigRefused => BAD,
        Name::BrokerAdopted if event.salvaged == Some(true) => BAD,
        Name::WorkerBackoff | Name::BrokerWaiting | Name::BrokerDraining | Name::AppStopping => BUSY,
        Name::WorkerReady | Name::RecycleFinished | Name::BrokerRecovered | Name::AppReady => GOOD,
        Name::WorkerStarted
        | Name::WorkerStandby
        | Name::WorkerPromoted
        | Name::WorkerStopping
        | Name::WorkerEnded
        | Name::RecycleStarted
        | Name::BrokerStarted
        | Name::BrokerOpened
        | Name::BrokerClosed
        | Name::BrokerDrained
        | Name::BrokerResumed
        | Name::BrokerScaled
        | Name::BrokerAdopted
        | Name::BrokerFinished
        | Name::BrokerRemoved
        | Name::ListenerBound
        | Name::ListenerClosed
        | Name::ConfigApplied => anstyle::Style::new(),
    }
}

/// Columns of most names of events.
const EVENT: usize = 15;

#[cfg(test)]
mod tests {
    use shiftboss_api::EventName;

    use super::*;
    use crate::output::capture::PLAIN;
    use crate::progress::tests::event;

    #[test]
    fn a_message_is_one_line_and_on_a_terminal_no_longer_one() {
        let said = |message: &str| MessageEvent {
            at: "2026-11-24T08:00:58.1234Z".into(),
            broker: "api".into(),
            event: MessageName::WorkerMessage,
            worker: "7".into(),
            slot: Some(2),
            pid: 130,
            message: serde_json::value::RawValue::from_string(message.to_owned()).unwrap(),
        };
        let line = |message: &str, look| super::message(&said(message), &TimeZone::UTC, look);
        assert_eq!(line("{\"a\":1}", PLAIN), "08:00:58.123  api/2  message  {\"a\":1}");
        assert_eq!(line("\"\u{9b}2J\"", PLAIN), "08:00:58.123  api/2  message  \"\u{fffd}2J\"");
        let long = format!("\"{}\"", "x".repeat(1000));
        assert_eq!(line(&long, PLAIN).chars().count(), 30 + 1002);
        let terminal = Look { redraw: true, width: 40, ..PLAIN };
        assert_eq!(line(&long, terminal), "08:00:58.123  api/2  message  \"xxxxxxxx…");
    }

    #[test]
    fn an_event_is_one_line() {
        let death = Event {
            worker: Some("3".into()),
            signal: Some("SIGKILL".into()),
            reason: Some("killed\u{7}".into()),
            ..event("58", EventName::WorkerDeath, Some(2), Some(130))
        };
        let line = human(&death, 6, &TimeZone::UTC, PLAIN);
        assert_eq!(line, "08:00:58 api    worker_death    #3 slot 2 pid 130 SIGKILL  killed\u{fffd}");
        let adopted = Event {
            workers: Some(4),
            salvaged: Some(true),
            ..event("58", EventName::BrokerAdopted, None, None)
        };
        let line = human(&adopted, 6, &TimeZone::UTC, PLAIN);
        assert_eq!(line, "08:00:58 api    broker_adopted  4 workers all that was under way is given up");
        let backoff = Event {
            retry_at: Some("2026-11-24T08:01:00.3Z".into()),
            reason: Some("2 failures in a row".into()),
            ..event("58", EventName::WorkerBackoff, Some(2), None)
        };
        let expected = "08:00:58 api    worker_backoff  slot 2 next try in 2.3 s  2 failures in a row";
        assert_eq!(human(&backoff, 6, &TimeZone::UTC, PLAIN), expected);
    }
}
