//! Pages of the program's own file: one that was used once stays mapped as long as the process lives, with fifteen more
//! around it (`do_fault_around` in the kernel's `mm/memory.c`), and is counted as the process's memory, although it is the
//! file's and found in its cache whenever it is needed.
#![allow(unsafe_code)]

use std::fs;
use std::ptr;
use std::time::Duration;

use rustix::mm::{Advice, madvise};

/// [`let_go`], once a start has settled, and once more.
pub async fn let_go_later() {
    for wait in SETTLED {
        tokio::time::sleep(wait).await;
        let_go();
    }
}

/// Lets go of this program's code and constants: most of it only the start has needed. What runs on is mapped again, a
/// fault for 64 KiB. Does nothing where `/proc` is not there.
pub fn let_go() {
    let Ok(program) = fs::read_link("/proc/self/exe") else { return };
    let Ok(maps) = fs::read_to_string("/proc/self/maps") else { return };
    let Some(program) = program.to_str() else { return };
    for (start, len) in maps.lines().filter_map(|line| unwritten(line, program)) {
        let start = ptr::with_exposed_provenance_mut(start);
        // SAFETY: the pages are a file's, mapped private, and nobody has written to them, so that they hold the same when
        // they are mapped again (`MADV_DONTNEED` in madvise(2)).
        let _ = unsafe { madvise(start, len, Advice::LinuxDontNeed) };
    }
}

/// Where a line of `/proc/PID/maps` (proc_pid_maps(5)) places code or constants of this program. The constants are what
/// begins its file; what is relocated, and was written to by that, begins further on.
fn unwritten(line: &str, program: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let is_unwritten = match words.next()? {
        "r-xp" => true,
        "r--p" => words.next()? == "00000000",
        _ => false,
    };
    let number = |hex| usize::from_str_radix(hex, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    (is_unwritten && line.ends_with(program)).then(|| (start, end - start))
}

/// After an app has become ready; again when the timers of a start have run out.
const SETTLED: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_constants_of_the_program_are_let_go_of_and_what_is_written_to_is_not() {
        let program = "/usr/bin/shiftboss";
        let places = |line: &str| unwritten(&format!("{line} /usr/bin/shiftboss"), program);
        assert_eq!(places("1000-3000 r--p 00000000 fe:00 7"), Some((0x1000, 0x2000)));
        assert_eq!(places("3000-9000 r-xp 00001000 fe:00 7"), Some((0x3000, 0x6000)));
        assert_eq!(places("9000-a000 r--p 00006000 fe:00 7"), None, "relocated");
        assert_eq!(places("a000-b000 rw-p 00007000 fe:00 7"), None);
        assert_eq!(unwritten("c000-d000 r-xp 00000000 fe:00 8 /usr/lib/libc.so.6", program), None);
        assert_eq!(unwritten("e000-f000 rw-p 00000000 00:00 0", program), None);
    }

    #[test]
    fn the_program_runs_on() {
        let program = std::env::current_exe().unwrap();
        let program = program.to_str().unwrap();
        // Where its code is, and how much of that is mapped, in bytes.
        let code = || {
            let maps = fs::read_to_string("/proc/self/smaps").unwrap();
            let mut lines = maps.lines();
            let place = lines.find_map(|line| unwritten(line, program).filter(|_| line.contains(" r-xp ")));
            let resident = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
            let resident: usize = resident.trim_end_matches("kB").trim().parse().unwrap();
            (place.unwrap(), resident * 1024)
        };
        let ((start, len), _) = code();
        for page in (start..start + len).step_by(4096) {
            // SAFETY: code of this program is mapped there, to be read.
            unsafe { ptr::with_exposed_provenance::<u8>(page).read_volatile() };
        }
        let before = code().1;
        let_go();
        let after = code().1;
        assert!(before <= len && after < before, "{after} of {before} bytes");
    }
}
