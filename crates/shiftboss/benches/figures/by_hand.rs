//! The baselines: two processes, a socket pair, blocking calls, the same lines.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use shiftboss_channel::{Framer, Framing, Heard, LONGEST};

use crate::Done;
use crate::calls::{print_median, question};
use crate::hundred::{Count, Hundred};

pub(crate) fn take(how: &str, expected: u64) -> Done {
    let (mut socket, mut sender) = other(&["send-by-hand", how, &expected.to_string()])?;
    let (mut framer, mut count) = (Framer::new(Framing::Lines, LONGEST), Count::to(expected));
    let mut buffer = vec![0; 256 * 1024];
    let mut rate = None;
    while rate.is_none() {
        let got = socket.read(&mut buffer)?;
        if got == 0 {
            return Err("the sender has ended too early".into());
        }
        framer.feed(&buffer[..got], |heard| {
            let Heard::Line(line) = heard else { panic!("a line was too long") };
            let message = serde_json::from_slice(line).expect("what was sent is a message");
            rate = count.take(&message).or(rate);
        });
    }
    sender.wait()?;
    println!("{}", rate.unwrap_or_default());
    Ok(())
}

pub(crate) fn send(how: &str, expected: u64) -> Done {
    let mut socket = inherited()?;
    let portion = if how == "one" { 0 } else { 60 * 1024 };
    let mut lines = Vec::new();
    for number in 0..expected {
        serde_json::to_writer(&mut lines, &Hundred::new(number))?;
        lines.push(b'\n');
        if lines.len() >= portion {
            socket.write_all(&lines)?;
            lines.clear();
        }
    }
    socket.write_all(&lines)?;
    Ok(())
}

/// To and fro, as long as a question.
pub(crate) fn ask(times: u32) -> Done {
    let (mut socket, mut answerer) = other(&["answer-by-hand"])?;
    let line = serde_json::to_vec(&question(0))?;
    let mut buffer = [0; 1024];
    let mut samples = Vec::new();
    for _ in 0..times {
        let begun = Instant::now();
        socket.write_all(&line)?;
        let got = socket.read(&mut buffer)?;
        samples.push(begun.elapsed());
        assert_eq!(got, line.len());
    }
    drop(socket);
    answerer.wait()?;
    print_median(samples);
    Ok(())
}

pub(crate) fn answer() -> Done {
    let mut socket = inherited()?;
    let mut buffer = [0; 1024];
    loop {
        match socket.read(&mut buffer)? {
            0 => return Ok(()),
            got => socket.write_all(&buffer[..got])?,
        }
    }
}

/// This program in another role, with the other end as its standard input.
fn other(role: &[&str]) -> Result<(UnixStream, Child), Box<dyn std::error::Error>> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = Command::new(std::env::current_exe()?);
    let child = command.arg("-").args(role).stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?;
    Ok((ours, child))
}

fn inherited() -> std::io::Result<UnixStream> {
    Ok(std::io::stdin().as_fd().try_clone_to_owned()?.into())
}
