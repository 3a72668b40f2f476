//! What an upgrade must survive: a program that speaks as a broker process does, and fails at the worst moment.
//!
//! When it fails is written behind its own file's end, after [`MARK`]: all that runs it gives it a broker process's
//! arguments and environment. It keeps nothing going; whoever was asked to replace it has to.

use std::env;
use std::io;
use std::process::ExitCode;

use rustix::io::Errno;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use shiftboss_link::wire::{GO, GO_CHECK, Item, READY};
use shiftboss_link::{LINK, Link};

fn main() -> ExitCode {
    let asked = asked().unwrap_or_default();
    match run(&asked) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("Error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(asked: &str) -> io::Result<u8> {
    if asked == "dies at once" {
        eprintln!("Error: it cannot stand it");
        return Ok(3);
    }
    let link = link()?;
    if asked == "says nothing" {
        return wait(&link);
    }
    let go = until_go(&link)?;
    if go == GO_CHECK {
        ready(&link)?;
        return Ok(0);
    }
    match asked {
        "is never ready" => wait(&link),
        "dies before it is ready" => Ok(4),
        "dies once it is ready" => ready(&link).map(|()| 5),
        _ => Err(io::Error::other(format!("nothing says how to fail: {asked:?}"))),
    }
}

fn asked() -> io::Result<String> {
    let file = std::fs::read(env::current_exe()?)?;
    let at = file.windows(MARK.len()).rposition(|bytes| bytes == MARK);
    let word = at.and_then(|at| file.get(at + MARK.len()..)).unwrap_or_default();
    Ok(String::from_utf8_lossy(word).trim().to_owned())
}

/// The descriptor that was inherited.
fn link() -> io::Result<Link> {
    let number = env::var(LINK).ok().and_then(|number| number.parse().ok()).ok_or(Errno::BADF)?;
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(Link(pidfd_getfd(own, number, PidfdGetfdFlags::empty())?))
}

fn until_go(link: &Link) -> io::Result<u64> {
    loop {
        let packet = link.hear(true)?.ok_or(Errno::PIPE)?;
        if let Some((go, _)) = packet.words.iter().find(|(item, _)| item.word == GO) {
            return Ok(go.value);
        }
    }
}

fn ready(link: &Link) -> io::Result<()> {
    link.say(&[Item::new(READY, 0, 0)], &[], true)
}

/// Until the other side is gone.
fn wait(link: &Link) -> io::Result<u8> {
    while link.hear(true).is_ok() {}
    Ok(0)
}

/// Between the program and the word that follows it.
const MARK: &[u8] = b"\nfails so: ";
