//! What the kernel tells about a process: proc(5).

use std::collections::HashMap;
use std::fs;

use anyhow::{Context as _, Result};
use rustix::process::Pid;

/// Proportional set size in KB: its own memory, and its part of what it shares.
pub(super) fn pss_kb(pid: Pid) -> Result<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    field(&text, "Pss:").with_context(|| format!("no Pss in {path}"))
}

/// How often its threads have gone to sleep so far, which is how often they were woken.
pub(super) fn wake_ups(pid: Pid) -> Result<f64> {
    let mut sum = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("no process {pid}"))? {
        let text = fs::read_to_string(thread?.path().join("status"))?;
        sum += field(&text, "voluntary_ctxt_switches:").context("no voluntary_ctxt_switches")?;
    }
    Ok(sum)
}

/// CPU time of all its threads so far, in ms; a tick is 10 ms (sysconf(3), `_SC_CLK_TCK`).
pub(super) fn cpu_ms(pid: Pid) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // Fields 14 and 15, counted from behind the name.
    let words = text.rsplit_once(") ").map(|(_, rest)| rest.split(' ').skip(11).take(2));
    let ticks = words.into_iter().flatten().filter_map(|word| word.parse::<f64>().ok()).sum::<f64>();
    Ok(ticks * 10.0)
}

/// All running processes and their parents, zombies not counted.
pub(super) fn parents() -> Result<HashMap<Pid, Pid>> {
    let mut found = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        let stat = pid.and_then(|pid| Some((pid, fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)));
        if let Some((pid, stat)) = stat
            && let Some((_, rest)) = stat.rsplit_once(") ")
            && let mut words = rest.split(' ')
            && words.next() != Some("Z")
            && let Some(parent) = words.next().and_then(|word| Pid::from_raw(word.parse().ok()?))
        {
            found.insert(pid, parent);
        }
    }
    Ok(found)
}

/// Whether this stands in its environment as it was when it was executed.
pub(super) fn has_in_environment(pid: Pid, variable: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|found| found == variable.as_bytes())
}

/// The running children of a process, zombies not counted.
pub(super) fn children(parent: Pid) -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        // A process that has gone meanwhile is nobody's child.
        let stat = pid.and_then(|pid| Some((pid, fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)));
        if let Some((pid, stat)) = stat
            && is_running_child(&stat, parent)
        {
            found.push(pid);
        }
    }
    Ok(found)
}

/// `PID (NAME) STATE PPID ...`, where the name may hold anything.
fn is_running_child(stat: &str, parent: Pid) -> bool {
    let Some((_, rest)) = stat.rsplit_once(") ") else { return false };
    let mut words = rest.split(' ');
    let (state, of) = (words.next(), words.next().and_then(|word| word.parse().ok()));
    state != Some("Z") && of == Some(parent.as_raw_nonzero().get())
}

fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_hide_the_parent() {
        let parent = Pid::from_raw(7).unwrap();
        assert!(is_running_child("12 (a) S 9) S 7 12 12", parent));
        assert!(!is_running_child("12 (a) Z 7 12 12", parent));
        assert!(!is_running_child("12 (a) S 8 12 12", parent));
    }

    #[test]
    fn this_process_has_memory_and_wake_ups() {
        let own = rustix::process::getpid();
        assert!(pss_kb(own).unwrap() > 100.0);
        assert!(wake_ups(own).unwrap() >= 0.0);
    }
}
