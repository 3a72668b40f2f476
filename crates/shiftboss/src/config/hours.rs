//! `schedule`: when a part-time broker works.

use super::keys;
use super::problem::{Findings, word};
use super::table::{Cell, Read, Table};
use super::value;
use crate::schedule::{Schedule, ScheduleError, When};

pub(super) fn schedule(cell: &Cell<'_>, findings: &mut Findings) -> Option<Schedule> {
    let table = Table::open(cell, &keys::SCHEDULE, findings)?;
    let open = table.require("open", "\"0 8 * * mon-fri\"", findings, value::plain_text);
    let close = table.require("close", "\"0 18 * * mon-fri\"", findings, value::plain_text);
    let zone = table.read("timezone", findings, value::plain_text);
    let zone = match zone {
        Read::Absent => None,
        Read::Is(name) => Some(name),
        Read::Wrong => return None,
    };
    let (open, close) = (open?, close?);
    let error = match Schedule::new(open, close, zone) {
        Ok(schedule) => return Some(schedule),
        Err(error) => error,
    };
    let (key, what, help) = match &error {
        ScheduleError::Pattern(When::Open, why) => ("open", why.clone(), Some(PATTERN)),
        ScheduleError::Pattern(When::Close, why) => ("close", why.clone(), Some(PATTERN)),
        ScheduleError::Zone(name) => {
            ("timezone", format!("there is no time zone `{}`", word(name)), Some(ZONE))
        }
        ScheduleError::Same => ("close", "it names the same times as open".to_owned(), None),
    };
    let say = |key, what: &str, help: Option<&str>, findings: &mut Findings| {
        let Some(cell) = table.cell(key) else { return };
        let problem = cell.problem(what);
        findings.push(match help {
            Some(help) => problem.help(help),
            None => problem,
        });
    };
    say(key, &what, help, findings);
    // The other one may be wrong as well.
    if key == "open"
        && let Err(ScheduleError::Pattern(_, why)) = Schedule::new(close, NEVER_WRONG, None)
    {
        say("close", &why, Some(PATTERN), findings);
    }
    None
}

const PATTERN: &str = "minute, hour, day, month, day of the week: \"0 8 * * mon-fri\"";
const ZONE: &str = "names are those of the IANA database, like \"Europe/Paris\"";
const NEVER_WRONG: &str = "59 59 23 31 12 *";
