//! A worker that misbehaves on request, so that tests and benchmarks of a supervisor can ask for what they need.
//!
//! What it does is asked for by flags (see `--help`, or [`options::HELP`]), on its command line or in
//! `TEST_WORKER_ARGS`. Without any it sleeps until SIGTERM and exits 0. It blocks and uses no runtime, to be small and
//! to start fast.

mod http;
mod options;
mod process;
mod report;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use self::options::{Options, Ready};
use self::process::{Termination, Woken};

fn main() -> ExitCode {
    let options = match Options::of_process() {
        Ok(Some(options)) => options,
        Ok(None) => return ended(say(options::HELP).map(|()| ExitCode::SUCCESS)),
        Err(error) => {
            eprintln!("Error: {error}");
            return ExitCode::from(2);
        }
    };
    ended(work(&options))
}

fn ended(result: io::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        // Standard error may be gone too, and then there is nobody to tell.
        let _ = writeln!(io::stderr(), "Error: {error}");
        ExitCode::FAILURE
    })
}

fn work(options: &Options) -> io::Result<ExitCode> {
    if let Some(file) = options.require_file.as_ref().filter(|file| !file.exists()) {
        return Err(io::Error::other(format!("{} is missing", file.display())));
    }
    // What was inherited is looked at, and children are made, before this process changes its own signals.
    let inherited = if options.sigmask { report::signals()? } else { String::new() };
    if options.ignore_term {
        process::ignore_term();
    }
    let mut children = String::new();
    if options.fork_child {
        children += &format!("child {}\n", process::fork_sleeper(false)?);
    }
    if options.setsid_child {
        children += &format!("child {}\n", process::fork_sleeper(true)?);
    }
    let termination = Termination::catch(options.ignore_term)?;
    if options.first_line {
        say(&report::first_line())?;
    }
    if let Some(file) = &options.first_line_to {
        let line = OpenOptions::new().append(true).create(true).open(file);
        line.and_then(|mut file| file.write_all(report::first_line().as_bytes()))
            .map_err(|error| io::Error::other(format!("{}: {error}", file.display())))?;
    }
    say(&(inherited + &children))?;
    talk(options)?;
    let ready_at = Instant::now() + options.ready_after.unwrap_or(Duration::ZERO);
    if termination.wait(Some(ready_at))? {
        return stop(options);
    }
    if options.ready == Ready::Notify {
        report::notify("READY=1")?;
    }
    serve(options, &termination)
}

/// Says and does what is done once, before ready.
fn talk(options: &Options) -> io::Result<()> {
    if options.env {
        say(&report::environment())?;
    }
    if options.fds {
        say(&report::descriptors()?)?;
    }
    if let Some(file) = &options.touch {
        File::create(file).map_err(|error| io::Error::other(format!("{}: {error}", file.display())))?;
    }
    for line in 1..=options.print {
        say(&format!("line {line}\n"))?;
    }
    let mut left = options.print_bytes;
    while left > 0 {
        let size = left.min(FLOOD.len());
        say(&"x".repeat(size))?;
        left -= size;
    }
    if options.close_stdout {
        process::close_stdout()?;
    }
    Ok(())
}

/// Does what is done from ready on, until the end that was asked for or SIGTERM.
fn serve(options: &Options, termination: &Termination) -> io::Result<ExitCode> {
    let end = options.ends_after().map(|wait| Instant::now() + wait);
    let told = if options.http {
        http::serve(termination, end)?
    } else if options.flood_output {
        flood(termination, end)?
    } else {
        termination.wait(end)?
    };
    if told {
        return stop(options);
    }
    if let Some(signal) = options.signal_self {
        process::die_by(signal)?;
    }
    Ok(ExitCode::from(options.exit.unwrap_or(0)))
}

/// Leaves as told by SIGTERM.
fn stop(options: &Options) -> io::Result<ExitCode> {
    thread::sleep(options.stop_delay.unwrap_or(Duration::ZERO));
    Ok(ExitCode::SUCCESS)
}

/// Writes as fast as somebody reads; true when ended by SIGTERM. Also when nobody reads, SIGTERM is noticed.
fn flood(termination: &Termination, end: Option<Instant>) -> io::Result<bool> {
    let stdout = io::stdout();
    loop {
        match termination.wait_or_writable(stdout.as_fd(), end)? {
            Woken::Told => return Ok(true),
            Woken::Time => return Ok(false),
            Woken::Writable => {
                rustix::io::write(stdout.as_fd(), &FLOOD)?;
            }
        }
    }
}

/// Writes to standard output at once; unlike `println!`, a closed pipe is an error and no panic.
fn say(text: &str) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// One line as long as the smallest pipe buffer, which a pipe that polls writable takes whole (pipe(7)).
const FLOOD: [u8; 4096] = {
    let mut line = [b'x'; 4096];
    line[4095] = b'\n';
    line
};
