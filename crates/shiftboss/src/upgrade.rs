//! Another image of the program takes over: checked first, then handed to the keeper. The keeper starts it, and goes back
//! to the present one if it does not prove itself.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use serde::{Deserialize, Serialize};
use shiftboss_api as api;
use shiftboss_core::id::RequestId;
use shiftboss_link::wire::{
    DEPOSIT, ENDED_EARLY, ENDED_SOON, GO, GO_CHECK, Item, NOT_EXECUTED, NOT_READY, READY, TOOK_OVER,
    UNDECIDED, how_it_ended,
};
use shiftboss_link::{Link, command, start_linked};
use tokio::sync::oneshot;

use crate::keys::Key;
use crate::os::image::{Identity, identity};
use crate::os::memory;

/// What a successor needs to see whether it could go on: files that it only reads.
pub(crate) type Estate = Vec<(Key, OwnedFd)>;

/// The upgrade that is under way or was the last one.
#[derive(Default)]
pub(crate) struct Upgrade {
    state: State,
    /// Who waits for its end.
    waiting: Vec<oneshot::Sender<api::Outcome>>,
    /// The image that was tried by another process.
    image: Option<Identity>,
}

/// What is left to a successor of an upgrade.
#[derive(Serialize, Deserialize)]
pub(crate) struct Note {
    /// The request's number.
    request: String,
    image: Option<Identity>,
    /// How it went, once that has been told.
    #[serde(default)]
    fate: Option<u64>,
}

#[derive(Default)]
enum State {
    #[default]
    None,
    /// The image is asked whether it could go on.
    Checking { request: RequestId, only: bool, answer: oneshot::Receiver<Result<OwnedFd, String>> },
    /// The keeper tries it.
    Trying { request: RequestId },
    /// How it ended.
    Over { request: RequestId, outcome: api::Outcome },
}

impl Upgrade {
    /// One that another process has begun, as far as has been told.
    pub(crate) fn go_on(note: &Note) -> Upgrade {
        let request = RequestId(note.request.parse().unwrap_or_default());
        let state = match note.fate {
            None => State::Trying { request },
            Some(fate) => State::Over { request, outcome: outcome(fate) },
        };
        Upgrade { state, waiting: Vec::new(), image: note.image }
    }

    /// Whether one is not over yet.
    pub(crate) fn is_under_way(&self) -> bool {
        matches!(self.state, State::Checking { .. } | State::Trying { .. })
    }

    /// The image that failed, if the last one did: it is not to be tried again.
    pub(crate) fn failed_image(&self) -> Option<Identity> {
        self.image.filter(|_| matches!(self.state, State::Over { outcome: api::Outcome::Failed { .. }, .. }))
    }

    /// Whether this very request was begun, by whomever.
    pub(crate) fn is_known(&self, request: RequestId) -> bool {
        match &self.state {
            State::None => false,
            State::Checking { request: known, .. }
            | State::Trying { request: known }
            | State::Over { request: known, .. } => *known == request,
        }
    }

    /// Whether this request is to be begun; otherwise it is answered, now or later.
    pub(crate) fn ask(
        &mut self,
        request: RequestId,
        reply: oneshot::Sender<api::Outcome>,
    ) -> Option<oneshot::Sender<api::Outcome>> {
        match &self.state {
            State::None => return Some(reply),
            State::Over { request: known, outcome } if *known == request => {
                // Whoever has stopped listening needs no answer.
                let _ = reply.send(outcome.clone());
            }
            State::Over { .. } => return Some(reply),
            State::Checking { request: known, .. } | State::Trying { request: known }
                if *known == request =>
            {
                self.waiting.push(reply);
            }
            State::Checking { .. } | State::Trying { .. } => {
                let _ = reply.send(busy("another upgrade is under way"));
            }
        }
        None
    }

    pub(crate) fn begin(
        &mut self,
        request: RequestId,
        only: bool,
        reply: Option<oneshot::Sender<api::Outcome>>,
        answer: oneshot::Receiver<Result<OwnedFd, String>>,
    ) {
        self.waiting.extend(reply);
        self.state = State::Checking { request, only, answer };
    }

    /// Waits for the image's own answer; for ever if none is asked.
    pub(crate) async fn checked(&mut self) -> Checked {
        let State::Checking { request, only, answer } = &mut self.state else {
            return std::future::pending().await;
        };
        let (request, only) = (*request, *only);
        let answer = answer.await.unwrap_or_else(|_| Err("nobody could ask it".to_owned()));
        match answer {
            Ok(image) if !only => {
                self.state = State::Trying { request };
                Checked::TakesOver(request, image)
            }
            Ok(_) => Checked::Over(self.end(request, done("the image on disk can take over"))),
            Err(reason) => Checked::Over(self.end(request, failed(reason))),
        }
    }

    /// The keeper has said how it went. If that is news: in words, and the note for successors, who need not tell it again.
    pub(crate) fn ended(&mut self, fate: u64) -> Option<(String, Note)> {
        let State::Trying { request } = self.state else { return None };
        let note = Note { request: request.0.to_string(), image: self.image, fate: Some(fate) };
        (fate != UNDECIDED).then(|| (self.end(request, outcome(fate)), note))
    }

    /// It cannot be handed over.
    pub(crate) fn fail(&mut self, request: RequestId, reason: String) -> String {
        self.end(request, failed(reason))
    }

    /// Answers all who wait; the outcome in words.
    fn end(&mut self, request: RequestId, outcome: api::Outcome) -> String {
        let words = match &outcome {
            api::Outcome::Done { note, .. } => note.clone().unwrap_or_default(),
            api::Outcome::Failed { reason, .. }
            | api::Outcome::Superseded { reason }
            | api::Outcome::Refused { reason, .. } => reason.clone(),
        };
        for reply in self.waiting.drain(..) {
            let _ = reply.send(outcome.clone());
        }
        self.state = State::Over { request, outcome };
        format!("upgrade: {words}")
    }
}

/// What comes of asking an image.
pub(crate) enum Checked {
    /// It shall take over.
    TakesOver(RequestId, OwnedFd),
    /// It cannot, or was only asked: in words.
    Over(String),
}

impl Note {
    /// Of an upgrade to this image.
    pub(crate) fn new(request: RequestId, image: &OwnedFd) -> Note {
        let path = format!("/proc/self/fd/{}", image.as_raw_fd());
        Note { request: request.0.to_string(), image: identity(Path::new(&path)), fate: None }
    }

    /// In memory that can be left to a successor.
    pub(crate) fn sealed(&self) -> io::Result<OwnedFd> {
        memory::sealed("shiftboss-upgrade", &serde_json::to_vec(self)?)
    }
}

/// Asks an image whether it could go on with this estate; returns it, held open. Waits for its answer, at most 10 s.
///
/// # Errors
/// Why it cannot, in words.
pub(crate) fn check(path: &Path, estate: &Estate) -> Result<OwnedFd, String> {
    let image: OwnedFd = open(path)?.into();
    let mut command = command(&image);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let (mut child, link) = start_linked(&mut command).map_err(|error| cannot(path, &error))?;
    let answered = if tell(&link, estate).is_ok() { answer(&link) } else { Some(false) };
    if !ends(&mut child) {
        let _ = child.kill();
    }
    let said = first_words(&mut child);
    let status = child.wait().map_err(|error| cannot(path, &error))?;
    match answered {
        None => Err(format!("{} did not answer within {AT_MOST:?}", path.display())),
        Some(true) => Ok(image),
        Some(false) if said.is_empty() => Err(format!("{} cannot take over: {status}", path.display())),
        Some(false) => Err(format!("{} cannot take over: {said}", path.display())),
    }
}

/// A script could be executed only by its name, which is not held.
fn open(path: &Path) -> Result<File, String> {
    let mut start = [0; 2];
    let file = File::open(path).map_err(|error| cannot(path, &error))?;
    match file.read_at(&mut start, 0) {
        Ok(_) if start == *b"#!" => {
            Err(format!("cannot run {}: it is a script, and no program file", path.display()))
        }
        Ok(_) => Ok(file),
        Err(error) => Err(cannot(path, &error)),
    }
}

/// Says all that a keeper would say, but "go".
fn tell(link: &Link, estate: &Estate) -> io::Result<()> {
    for (key, file) in estate {
        let item = Item { descriptors: 1, ..Item::new(DEPOSIT, key.value(), 0) };
        link.say(&[item], &[file.as_fd()], true)?;
    }
    link.say(&[Item::new(GO, 0, GO_CHECK)], &[], true)
}

/// Whether it says that it is ready before it ends; none if it does neither in time.
fn answer(link: &Link) -> Option<bool> {
    let until = Instant::now() + AT_MOST;
    loop {
        match link.hear(false) {
            Ok(Some(packet)) => return Some(packet.words.iter().any(|(item, _)| item.word == READY)),
            Ok(None) => {}
            Err(_) => return Some(false),
        }
        let left = until.checked_duration_since(Instant::now())?;
        let left =
            Timespec { tv_sec: i64::try_from(left.as_secs()).ok()?, tv_nsec: left.subsec_nanos().into() };
        // An interruption is a short wait.
        let _ = poll(&mut [PollFd::new(link, PollFlags::IN)], Some(&left));
    }
}

/// Whether it ends by itself soon.
fn ends(child: &mut Child) -> bool {
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        if !matches!(child.try_wait(), Ok(None)) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

/// The first line that it wrote to its standard error; it has ended. Nobody is waited for who has inherited that.
fn first_words(child: &mut Child) -> String {
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take()
        && fcntl_setfl(&stderr, OFlags::NONBLOCK).is_ok()
    {
        let _ = stderr.take(LONGEST).read_to_end(&mut said);
    }
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

/// What the keeper says of it.
fn outcome(fate: u64) -> api::Outcome {
    let detail = fate >> 8;
    let why = match fate & 0xff {
        TOOK_OVER => return done("the image on disk has taken over"),
        NOT_EXECUTED => {
            let error = io::Error::from_raw_os_error(i32::try_from(detail).unwrap_or(0));
            format!("it cannot be executed: {error}")
        }
        ENDED_EARLY => format!("it {} before it was ready", how_it_ended(detail)),
        NOT_READY => "it was not ready in time".to_owned(),
        ENDED_SOON => format!("it was ready, then {}", how_it_ended(detail)),
        _ => "for a reason that only a newer version knows".to_owned(),
    };
    failed(format!("the image on disk was given up, and the old one goes on: {why}"))
}

fn done(note: &str) -> api::Outcome {
    api::Outcome::Done { note: Some(note.to_owned()), total: 0, replaced: 0, cut: 0, refused: 0 }
}

fn failed(reason: String) -> api::Outcome {
    api::Outcome::Failed { reason, total: 0, replaced: 0, worker: None, slot: None, last_lines: Vec::new() }
}

pub(crate) fn refused(reason: &str) -> api::Outcome {
    api::Outcome::Refused { reason: reason.to_owned(), busy: false }
}

fn busy(reason: &str) -> api::Outcome {
    api::Outcome::Refused { reason: reason.to_owned(), busy: true }
}

fn cannot(path: &Path, error: &io::Error) -> String {
    format!("cannot run {}: {error}", path.display())
}

const AT_MOST: Duration = Duration::from_secs(10);
const LONGEST: u64 = 64 * 1024;
