//! The file itself: opened so that nothing can make it wait, read whole, at most 1 MiB, as UTF-8.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use rustix::process::geteuid;

use super::ConfigErrors;
use super::problem::Problem;
use super::render::{Diagnostic, Place};
use super::source::Source;

/// The file's text.
pub(super) fn text(path: &Path) -> Result<String, ConfigErrors> {
    let name = path.display().to_string();
    let whole = |problem| ConfigErrors::new(vec![Source::new(&name, "", Vec::new()).diagnose(problem)]);
    let file = open(path).map_err(whole)?;
    is_ours_alone(path, &file, geteuid().as_raw()).map_err(whole)?;
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large, however large it says it is.
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| whole(Problem::of_file(format!("cannot read the file: {}", lowercase(&error)))))?;
    if bytes.len() as u64 > LARGEST {
        return Err(whole(Problem::of_file("the file is larger than 1 MiB")));
    }
    decode(&name, bytes)
}

/// The bytes as text.
pub(super) fn decode(name: &str, bytes: Vec<u8>) -> Result<String, ConfigErrors> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let valid = String::from_utf8_lossy(&error.as_bytes()[..at]);
        let byte = error.as_bytes().get(at).copied().unwrap_or_default();
        let problem = Problem::of_file(format!("not valid UTF-8: byte 0x{byte:02x} at offset {at}"));
        let last = valid.rsplit('\n').next().unwrap_or_default().trim_start_matches('\u{feff}');
        let line = valid.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let place = Place { line, column: last.chars().count() + 1, excerpt: None };
        let diagnostic = Source::new(name, "", Vec::new()).diagnose(problem);
        ConfigErrors::new(vec![Diagnostic { place: Some(place), ..diagnostic }])
    })
}

/// Name of the directory that the file is in, as the caller wrote it where that is a name: behind a link that each
/// deploy sets anew, an app keeps its name.
pub(super) fn directory_name(path: &Path) -> Option<String> {
    let absolute = std::path::absolute(path).ok()?;
    let parent = absolute.parent()?;
    let parent = match parent.components().next_back()? {
        Component::Normal(_) => parent.to_owned(),
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => {
            parent.canonicalize().ok()?
        }
    };
    Some(parent.file_name()?.to_string_lossy().into_owned())
}

fn open(path: &Path) -> Result<File, Problem> {
    // O_NONBLOCK: opening a FIFO without a writer would wait (open(2)); std adds O_CLOEXEC.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = opened.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Problem::of_file("there is no such configuration file")
            .help("`shiftboss run -- CMD` runs a command without a file; `-c FILE` names another file"),
        _ => Problem::of_file(format!("cannot open the file: {}", lowercase(&error))),
    })?;
    let kind = file
        .metadata()
        .map_err(|error| Problem::of_file(format!("cannot read the file: {}", lowercase(&error))))?
        .file_type();
    if kind.is_file() {
        return Ok(file);
    }
    let found = if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "something else"
    };
    Err(Problem::of_file(format!("expected a regular file, found {found}")))
}

/// For root: whoever can write the file, or put another in its place, can have anything run by root. The folder that
/// counts is that of the file itself and, if the path leads over a link, that of the link.
fn is_ours_alone(path: &Path, file: &File, user: u32) -> Result<(), Problem> {
    const ROOT: u32 = 0;
    if user != ROOT {
        return Ok(());
    }
    let unknown =
        |error| Problem::of_file(format!("cannot see who may change the file: {}", lowercase(&error)));
    let file = file.metadata().map_err(unknown)?;
    if let Some(who) = other_writers(&file) {
        let help = format!(
            "`chown root {path}` and `chmod go-w {path}` make it root's alone",
            path = path.display()
        );
        return Err(Problem::of_file(format!("root does not follow a file that {who} may change")).help(help));
    }
    let folder = |path: &Path| path.parent().map_or_else(PathBuf::new, Path::to_owned);
    let written = std::path::absolute(path).map_err(unknown)?;
    let mut folders = vec![folder(&written), folder(&written.canonicalize().map_err(unknown)?)];
    folders.dedup();
    for folder in folders {
        let met = std::fs::metadata(&folder).map_err(unknown)?;
        // Where it is set, only the owner of a file may put another in its place (inode(7)).
        let sticky = met.uid() == ROOT && met.mode() & libc::S_ISVTX != 0;
        if let Some(who) = other_writers(&met).filter(|_| !sticky) {
            let folder = folder.display();
            let message = format!("root does not follow a file in a folder that {who} may change: {folder}");
            let help = format!("`chown root {folder}` and `chmod go-w {folder}` make it root's alone");
            return Err(Problem::of_file(message).help(help));
        }
    }
    Ok(())
}

/// Who else than root may change it, in words. Its group may if that is root's own.
fn other_writers(met: &Metadata) -> Option<String> {
    let (mode, group) = (met.mode(), met.gid());
    if met.uid() != 0 {
        Some(format!("user {}", met.uid()))
    } else if mode & libc::S_IWOTH != 0 {
        Some("everybody".to_owned())
    } else if mode & libc::S_IWGRP != 0 && group != 0 {
        Some(format!("group {group}"))
    } else {
        None
    }
}

/// What the system says, as the middle of a sentence: "permission denied".
fn lowercase(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    characters.next().map_or(String::new(), |first| first.to_lowercase().chain(characters).collect())
}

const LARGEST: u64 = 1 << 20;
