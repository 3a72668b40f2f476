//! News of folders: something in one of them was written, made, moved or removed (`inotify(7)`). What it was is not told,
//! since events are lost on overflow and come too early as well; whoever hears looks. Files that are only read are no
//! news: whoever waits here is not woken by them.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// Folders that are watched.
#[derive(Debug)]
pub struct FileWatch(OwnedFd);

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watched(i32);

/// Why a folder is not watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchFailure {
    /// As many as one user may have (`/proc/sys/fs/inotify/`).
    #[error("the limit of {0} is reached: sysctl {0} shows it, root can raise it")]
    Limit(&'static str),
    /// Anything else: mostly that there is no such folder any more.
    #[error("{0}")]
    Other(#[from] io::Error),
}

impl FileWatch {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// The limit of instances, or that of open files.
    pub fn new() -> Result<FileWatch, WatchFailure> {
        match inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK) {
            Ok(inotify) => Ok(FileWatch(inotify)),
            Err(Errno::MFILE) => Err(WatchFailure::Limit("fs.inotify.max_user_instances")),
            Err(error) => Err(WatchFailure::Other(error.into())),
        }
    }

    /// Hears of what happens in a folder, not in those below it. The same folder again is the same watch.
    ///
    /// # Errors
    /// The limit of watches; ENOENT or ENOTDIR if it is no folder; EACCES if it may not be read.
    pub fn add(&self, folder: &Path) -> Result<Watched, WatchFailure> {
        let of = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        match inotify::add_watch(&self.0, folder, of) {
            Ok(watched) => Ok(Watched(watched)),
            Err(Errno::NOSPC) => Err(WatchFailure::Limit("fs.inotify.max_user_watches")),
            Err(error) => Err(WatchFailure::Other(error.into())),
        }
    }

    /// Hears of it no longer. One whose folder is gone was forgotten by the kernel.
    pub fn remove(&self, watched: Watched) {
        let _ = inotify::remove_watch(&self.0, watched.0);
    }

    /// Takes in that something has happened, an overflow included.
    pub fn take(&self) {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.0, &mut space);
        while events.next().is_ok() {}
    }
}

impl AsFd for FileWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::spawn::trial::readable;
    use rustix::event::{PollFd, PollFlags, poll};
    use std::fs;

    fn is_quiet(watch: &FileWatch) -> bool {
        let mut fds = [PollFd::new(watch, PollFlags::IN)];
        poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 0
    }

    #[test]
    fn what_changes_is_news_and_what_is_read_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "one").unwrap();
        let watch = FileWatch::new().unwrap();
        let watched = watch.add(folder.path()).unwrap();
        assert_eq!(watch.add(folder.path()).unwrap(), watched);
        fs::read(&file).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(is_quiet(&watch));
        fs::write(&file, "two").unwrap();
        assert!(readable(watch.as_fd()));
        watch.take();
        fs::rename(&file, folder.path().join("other")).unwrap();
        assert!(readable(watch.as_fd()));
        watch.take();
        watch.remove(watched);
        watch.take();
        fs::write(&file, "three").unwrap();
        assert!(is_quiet(&watch));
        assert!(matches!(watch.add(&file), Err(WatchFailure::Other(_))));
    }
}
