//! `schedule`: when a part-time broker works.

use super::keys;
use super::problem::{Findings, word};
use super::table::{Cell, Read, Table};
use super::value;
use crate::schedule::{Schedule, ScheduleError, is_zone, wrong_pattern};

pub(super) fn schedule(cell: &Cell<'_>, findings: &mut Findings) -> Option<Schedule> {
    let table = Table::open(cell, &keys::SCHEDULE, findings)?;
    let open = table.require("open", "\"0 8 * * mon-fri\"", findings, value::plain_text);
    let close = table.require("close", "\"0 18 * * mon-fri\"", findings, value::plain_text);
    let zone = table.read("timezone", findings, zone);
    let known = findings.problems.len();
    for (key, pattern) in [("open", open), ("close", close)] {
        if let (Some(cell), Some(why)) = (table.cell(key), pattern.and_then(wrong_pattern)) {
            findings.push(cell.problem(why).help(PATTERN));
        }
    }
    let (zone_is_wrong, zone) = (matches!(zone, Read::Wrong), zone.value());
    let read = Schedule::new(open?, close?, zone);
    match (&read, table.cell("close")) {
        (Err(ScheduleError::Same), Some(close)) => {
            findings.push(close.problem("it names the same times as open"));
        }
        // Said above, unless it depends on the zone.
        (Err(error), _) if findings.problems.len() == known => findings.push(cell.problem(error)),
        (Ok(_) | Err(_), _) => {}
    }
    read.ok().filter(|_| !zone_is_wrong)
}

fn zone<'t>(cell: &Cell<'t>, findings: &mut Findings) -> Option<&'t str> {
    let name = value::plain_text(cell, findings)?;
    if !is_zone(name) {
        findings.push(cell.problem(format_args!("there is no time zone `{}`", word(name))).help(ZONE));
        return None;
    }
    Some(name)
}

const PATTERN: &str = "minute, hour, day, month, day of the week: \"0 8 * * mon-fri\"";
const ZONE: &str = "names are those of the IANA database, like \"Europe/Paris\"";
