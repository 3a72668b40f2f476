//! The baseline of `bench`: the least that can be called a supervisor. It starts N workers, and another one at once
//! for each that ends. It knows nothing of readiness, stops nobody and ends with an error or by a signal.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Signal, WaitOptions, set_parent_process_death_signal, wait};

use crate::number;

pub(crate) fn run(words: &[OsString]) -> Result<bool> {
    let Some((count, [separator, command @ ..])) = words.split_first() else {
        bail!("usage: bare-supervisor N -- CMD...");
    };
    if separator != "--" || command.is_empty() {
        bail!("usage: bare-supervisor N -- CMD...");
    }
    let workers: u32 = number("bare-supervisor", Some(count))?;
    let program = Program::new(command)?;
    // Nothing asks it to end; so it does not outlive the bench, however that ends.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    for _ in 0..workers {
        program.spawn()?;
    }
    loop {
        wait(WaitOptions::empty()).context("wait")?;
        program.spawn()?;
    }
}

/// A command line as posix_spawn(3) wants it, made once.
struct Program {
    words: Vec<CString>,
}

impl Program {
    fn new(command: &[OsString]) -> Result<Program> {
        let words = command.iter().map(|word| CString::new(word.as_bytes()));
        Ok(Program { words: words.collect::<Result<_, _>>().context("a word holds a NUL byte")? })
    }

    /// Starts the program, found by its path, with this process's environment.
    fn spawn(&self) -> Result<()> {
        let mut argv: Vec<*mut libc::c_char> =
            self.words.iter().map(|word| word.as_ptr().cast_mut()).collect();
        argv.push(ptr::null_mut());
        let mut pid = 0;
        // SAFETY: the program and its arguments are NUL-terminated strings that outlive the call, and the array of
        // arguments ends with null; posix_spawn writes to none of them. No other thread changes the environment.
        let error = unsafe {
            let (actions, attributes) = (ptr::null(), ptr::null());
            libc::posix_spawn(&raw mut pid, argv[0], actions, attributes, argv.as_ptr(), environ)
        };
        match error {
            0 => Ok(()),
            error => Err(std::io::Error::from_raw_os_error(error)).context("posix_spawn"),
        }
    }
}

// SAFETY: declared as in environ(7).
unsafe extern "C" {
    static environ: *const *mut libc::c_char;
}
