//! `schedule`: when a part-time broker works.

use super::keys;
use super::problem::Findings;
use super::table::{Cell, Table};
use super::value;
use crate::schedule::{Schedule, ScheduleError, When};

pub(super) fn schedule(cell: &Cell<'_>, findings: &mut Findings) -> Option<Schedule> {
    let table = Table::open(cell, &keys::SCHEDULE, findings)?;
    let open = table.require("open", "\"0 8 * * mon-fri\"", findings, value::plain_text);
    let close = table.require("close", "\"0 18 * * mon-fri\"", findings, value::plain_text);
    let zone = table.read("timezone", findings, value::plain_text);
    let zone = match zone {
        super::table::Read::Absent => None,
        super::table::Read::Is(name) => Some(name),
        super::table::Read::Wrong => return None,
    };
    let (open, close) = (open?, close?);
    let error = match Schedule::new(open, close, zone) {
        Ok(schedule) => return Some(schedule),
        Err(error) => error,
    };
    let key = match &error {
        ScheduleError::Pattern(When::Open, _) => "open",
        ScheduleError::Pattern(When::Close, _) | ScheduleError::Same => "close",
        ScheduleError::Zone(_) => "timezone",
    };
    let problem = table.problem(key, &format!("`schedule`: {error}"));
    findings.push(match error {
        ScheduleError::Pattern(..) => problem.help(PATTERN),
        ScheduleError::Zone(_) => problem.help("names are those of the IANA database, like \"Europe/Paris\""),
        ScheduleError::Same => problem,
    });
    // The other one may be wrong as well.
    if let ScheduleError::Pattern(When::Open, _) = error
        && let Err(ScheduleError::Pattern(_, why)) = Schedule::new(close, NEVER_WRONG, None)
    {
        findings.push(table.problem("close", &format!("`schedule`: close: {why}")).help(PATTERN));
    }
    None
}

const PATTERN: &str = "minute, hour, day of the month, month, day of the week: \"0 8 * * mon-fri\"";
const NEVER_WRONG: &str = "59 59 23 31 12 *";
