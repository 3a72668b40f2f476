//! Starting one worker after the other: in a small program, in a large one, and in one with many open files.

use std::fs::File;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shiftboss::options::Ready;
use shiftboss::{App, Broker, BrokerOptions};

use crate::Done;
use crate::calls::print_median;

pub(crate) fn measure(app: &App, size: &str, times: u32) -> Done {
    let memory = if size == "large" { large() } else { Vec::new() };
    let files = if size == "crowded" { crowd()? } else { Vec::new() };
    let mut options = BrokerOptions::new(["/bin/sleep", "1000"]);
    options.workers = 0;
    options.ready = Some(Ready::After(Duration::ZERO));
    let broker = Broker::start(app, "sleeper", options)?;
    let mut samples = Vec::new();
    for workers in 1..=times {
        let begun = Instant::now();
        broker.scale(workers).wait()?;
        samples.push(begun.elapsed());
    }
    drop(files);
    assert!(memory.iter().all(|byte| *byte == 1));
    app.stop(true);
    app.wait()?;
    print_median(samples);
    Ok(())
}

/// As many open files as thousands of workers need.
fn crowd() -> std::io::Result<Vec<File>> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    (0..15_000).map(|_| File::open("/dev/null")).collect()
}

/// A gigabyte that is in use, and threads.
fn large() -> Vec<u8> {
    for _ in 0..8 {
        thread::spawn(|| {
            loop {
                thread::park();
            }
        });
    }
    vec![1; 1 << 30]
}
