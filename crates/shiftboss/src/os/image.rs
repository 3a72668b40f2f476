//! The program's file on disk: heard of when it is another one than the one that runs (`inotify(7)`). What follows from
//! that is the driver's.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};

/// Watches one file by its folder, so that one that is moved into its place is seen.
#[derive(Debug)]
pub struct ImageWatch {
    inotify: OwnedFd,
    path: PathBuf,
    known: Option<Identity>,
}

/// Device, inode, mode, size, time of the last change of contents.
pub type Identity = (u64, u64, u32, u64, i64, i64);

impl ImageWatch {
    /// Begins to watch. Known is that image, or else the one that we run ourselves.
    ///
    /// # Errors
    /// Those of inotify_init(2) and inotify_add_watch(2).
    pub fn new(path: &Path, known: Option<Identity>) -> io::Result<ImageWatch> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let of = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::ATTRIB | WatchFlags::ONLYDIR;
        inotify::add_watch(&inotify, folder, of)?;
        let known = known.or_else(|| identity(Path::new("/proc/self/exe")));
        Ok(ImageWatch { inotify, path: path.to_owned(), known })
    }

    /// Whether the file is there and another one than when this was last asked.
    pub fn has_changed(&mut self) -> bool {
        let now = identity(&self.path);
        let changed = now.is_some() && now != self.known;
        self.known = now.or(self.known);
        changed
    }

    /// Takes in that something has happened in the folder.
    pub fn take(&self) {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.inotify, &mut space);
        while events.next().is_ok() {}
    }
}

impl AsFd for ImageWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// Which file is there, if there is one.
#[must_use]
pub fn identity(path: &Path) -> Option<Identity> {
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino(), file.mode(), file.size(), file.mtime(), file.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::spawn::trial::readable;

    #[test]
    fn a_file_that_takes_its_place_is_news_once_and_others_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        fs::write(&path, "one").unwrap();
        let mut watch = ImageWatch::new(&path, identity(&path)).unwrap();
        assert!(!watch.has_changed());
        fs::write(folder.path().join("other"), "two").unwrap();
        assert!(readable(watch.as_fd()) && !watch.has_changed());
        watch.take();
        fs::rename(folder.path().join("other"), &path).unwrap();
        assert!(readable(watch.as_fd()) && watch.has_changed());
        assert!(!watch.has_changed());
        fs::remove_file(&path).unwrap();
        assert!(!watch.has_changed());
    }

    #[test]
    fn what_is_not_what_we_run_is_news_from_the_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        fs::write(&path, "one").unwrap();
        let mut watch = ImageWatch::new(&path, None).unwrap();
        assert!(watch.has_changed() && !watch.has_changed());
    }
}
