//! A thread that sees files change, for all brokers of an app that watch some.
//!
//! Every news of a folder means only: look. What counts is whether the files that the patterns match have other times or
//! sizes than before, so that bursts, editors that write beside and rename, and lost events do no harm. A folder is
//! watched before it is read, so that nothing in it is missed. At rest the thread sleeps.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use shiftboss_core::id::BrokerId;
use tokio::sync::mpsc::UnboundedSender;

use super::{Pattern, Watch};
use crate::driver::Seen;
use crate::os::file_watch::{FileWatch, WatchFailure, Watched};

/// A broker that watches.
pub(crate) struct Subject {
    pub(crate) broker: BrokerId,
    pub(crate) name: String,
    pub(crate) watch: Watch,
}

/// The thread. It ends with this.
pub(crate) struct Files {
    thread: JoinHandle<()>,
    joining: Sender<Subject>,
    /// A byte for each that joins.
    wake: OwnedFd,
}

impl Files {
    /// Watches nothing yet; what cannot be watched is said, and does not keep an app from running.
    pub(crate) fn new(tell: UnboundedSender<Seen>) -> std::io::Result<Files> {
        let (ends, wake) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let (joining, subjects) = channel();
        let thread = std::thread::Builder::new().name("files".to_owned());
        let thread = thread.spawn(move || match FileWatch::new() {
            Ok(watch) => {
                let mut all = All { watch, folders: BTreeMap::new(), subjects: Vec::new() };
                all.run(&ends, &subjects, &tell);
            }
            Err(error) => drop(tell.send(Seen::Note(format!("watch: no file is watched: {error}")))),
        })?;
        Ok(Files { thread, joining, wake })
    }

    /// Watches for one more.
    pub(crate) fn add(&self, subject: Subject) {
        // A thread that has ended has said why; a full pipe wakes as well.
        let _ = self.joining.send(subject);
        let _ = rustix::io::write(&self.wake, &[0]);
    }

    /// No file could be watched.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}

/// All that is watched.
struct All {
    watch: FileWatch,
    /// Each folder, as the inode that it was.
    folders: BTreeMap<PathBuf, (Watched, Identity)>,
    subjects: Vec<Look>,
}

struct Look {
    broker: BrokerId,
    name: String,
    base: PathBuf,
    patterns: Vec<Pattern>,
    files: BTreeMap<PathBuf, Print>,
}

/// Device and inode.
type Identity = (u64, u64);
/// Time of the last change of contents, size, inode.
type Print = (i64, i64, u64, u64);

impl All {
    fn begin(&mut self, subject: Subject, tell: &UnboundedSender<Seen>) {
        let note = |words: String| drop(tell.send(Seen::Note(words)));
        let Subject { broker, name, watch } = subject;
        let (base, patterns, files) = (watch.base().to_owned(), watch.patterns(), BTreeMap::new());
        let mut look = Look { broker, name, base, patterns, files };
        match self.find(&look, &mut BTreeSet::new()) {
            Err(error) => return note(unwatched(&look.name, &error)),
            Ok(found) => look.files = found,
        }
        for pattern in look.patterns.iter().filter(|pattern| !pattern.matches_any(&look.files)) {
            note(format!("{}: watch: `{}` matches no file yet", look.name, pattern.text));
        }
        let many = look.files.len();
        note(format!("{}: watches {many} file{}", look.name, if many == 1 { "" } else { "s" }));
        self.subjects.push(look);
    }

    fn run(&mut self, ends: &OwnedFd, joining: &Receiver<Subject>, tell: &UnboundedSender<Seen>) {
        let mut took = Duration::ZERO;
        loop {
            // Before it is looked who has joined: whoever does so later wakes again.
            while rustix::io::read(ends, &mut [0; 64]).is_ok_and(|read| read > 0) {}
            joining.try_iter().for_each(|subject| self.begin(subject, tell));
            if is_over(ends, Some(&self.watch), None) {
                return;
            }
            // Many events are one look; and whoever looks at many files does so not all the time.
            if is_over(ends, None, Some(SETTLE.max(took * 4))) {
                return;
            }
            self.watch.take();
            let begun = Instant::now();
            if !self.look(tell) {
                return;
            }
            took = begun.elapsed();
        }
    }

    /// Compares; false if nobody listens any more.
    fn look(&mut self, tell: &UnboundedSender<Seen>) -> bool {
        self.forget_the_gone();
        let mut seen = BTreeSet::new();
        let mut left = Vec::new();
        for mut look in std::mem::take(&mut self.subjects) {
            match self.find(&look, &mut seen) {
                Ok(found) => {
                    if let Some(path) = first_difference(&look.files, &found) {
                        let shown = path.strip_prefix(&look.base).unwrap_or(&path).display().to_string();
                        if tell.send(Seen::Changed(look.broker, shown)).is_err() {
                            return false;
                        }
                    }
                    look.files = found;
                    left.push(look);
                }
                Err(error) => drop(tell.send(Seen::Note(unwatched(&look.name, &error)))),
            }
        }
        self.subjects = left;
        true
    }

    /// A folder that was removed or replaced is another one when it is there again. One that is reached by several paths
    /// has one watch: with it goes every path, and those that still lead there are found again.
    fn forget_the_gone(&mut self) {
        let is_gone =
            |path: &Path, was: Identity| fs::metadata(path).map_or(true, |now| identity(&now) != was);
        let gone = self.folders.iter().filter(|(path, (_, was))| is_gone(path, *was));
        let gone: BTreeSet<Watched> = gone.map(|(_, (watched, _))| *watched).collect();
        gone.iter().for_each(|watched| self.watch.remove(*watched));
        self.folders.retain(|_, (watched, _)| !gone.contains(watched));
    }

    /// All files that the patterns of a broker match, each folder on the way watched.
    fn find(
        &mut self,
        look: &Look,
        seen: &mut BTreeSet<PathBuf>,
    ) -> Result<BTreeMap<PathBuf, Print>, WatchFailure> {
        let mut found = BTreeMap::new();
        for pattern in &look.patterns {
            self.watch_above(&pattern.root, seen)?;
            let mut folders = vec![(pattern.root.clone(), 0)];
            while let Some((folder, depth)) = folders.pop() {
                if !self.add(&folder, seen)? {
                    continue;
                }
                for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                    let path = entry.path();
                    let name = entry.file_name();
                    // A link to a folder may lead back to where it stands.
                    if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                        if depth < pattern.depth && pattern.enters(&name.to_string_lossy()) {
                            folders.push((path, depth + 1));
                        }
                        continue;
                    }
                    let below = path.strip_prefix(&pattern.root).unwrap_or(&path);
                    if pattern.below.is_match(below)
                        && let Ok(of) = fs::metadata(&path)
                        && of.is_file()
                    {
                        found.insert(path, (of.mtime(), of.mtime_nsec(), of.size(), of.ino()));
                    }
                }
            }
        }
        Ok(found)
    }

    /// A folder that is not there yet may come: the nearest one above it hears of that. A link on the way may be replaced,
    /// as a deploy does: the folder that it stands in hears of that.
    fn watch_above(&mut self, root: &Path, seen: &mut BTreeSet<PathBuf>) -> Result<(), WatchFailure> {
        for folder in root.ancestors() {
            let mut link = folder.to_owned();
            for _ in 0..MOST_LINKS {
                let (Ok(target), Some(parent)) = (fs::read_link(&link), link.parent()) else { break };
                self.add(parent, seen)?;
                link = parent.join(target);
            }
        }
        let above = root.ancestors().skip(1).find(|folder| folder.is_dir());
        match above {
            // Also when it is there: it may be replaced.
            Some(folder) => self.add(folder, seen).map(drop),
            None => Ok(()),
        }
    }

    /// Watches a folder, if it is there; each once in a look.
    fn add(&mut self, folder: &Path, seen: &mut BTreeSet<PathBuf>) -> Result<bool, WatchFailure> {
        if seen.contains(folder) || self.folders.contains_key(folder) {
            seen.insert(folder.to_owned());
            return Ok(true);
        }
        match self.watch.add(folder) {
            Ok(watched) => {
                if let Ok(of) = fs::metadata(folder) {
                    self.folders.insert(folder.to_owned(), (watched, identity(&of)));
                }
                seen.insert(folder.to_owned());
                Ok(true)
            }
            Err(limit @ WatchFailure::Limit(_)) => Err(limit),
            Err(WatchFailure::Other(_)) => Ok(false),
        }
    }
}

impl Pattern {
    fn matches_any(&self, files: &BTreeMap<PathBuf, Print>) -> bool {
        let below =
            |path: &PathBuf| path.strip_prefix(&self.root).is_ok_and(|rest| self.below.is_match(rest));
        files.keys().any(below)
    }
}

/// Waits for the end, for news if asked, at most for so long; whether the end has come.
fn is_over(ends: &OwnedFd, news: Option<&FileWatch>, at_most: Option<Duration>) -> bool {
    let mut fds = vec![PollFd::new(ends, PollFlags::IN)];
    fds.extend(news.map(|news| PollFd::new(news, PollFlags::IN)));
    let at_most = at_most.and_then(|wait| Timespec::try_from(wait).ok());
    match poll(&mut fds, at_most.as_ref()) {
        // The other end of the pipe is closed.
        Ok(_) => fds[0].revents().contains(PollFlags::HUP),
        Err(rustix::io::Errno::INTR) => false,
        Err(_) => true,
    }
}

fn identity(of: &fs::Metadata) -> Identity {
    (of.dev(), of.ino())
}

/// The first file that is new, gone or another.
fn first_difference(was: &BTreeMap<PathBuf, Print>, is: &BTreeMap<PathBuf, Print>) -> Option<PathBuf> {
    let gone = was.keys().find(|path| !is.contains_key(*path));
    let other = is.iter().find(|(path, print)| was.get(*path) != Some(*print)).map(|(path, _)| path);
    [gone, other].into_iter().flatten().min().cloned()
}

fn unwatched(name: &str, error: &WatchFailure) -> String {
    format!("{name}: watch: its files are not watched any more: {error}")
}

/// After the first event of a burst.
const SETTLE: Duration = Duration::from_millis(10);
/// As many links after each other as the kernel follows.
const MOST_LINKS: u32 = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::spawn::trial::readable;
    use std::io::Write as _;
    use std::os::fd::AsFd as _;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    struct Stage {
        folder: tempfile::TempDir,
        seen: UnboundedReceiver<Seen>,
        files: Files,
    }

    impl Stage {
        fn of(patterns: &[&str], prepare: impl FnOnce(&Path)) -> Stage {
            let folder = tempfile::tempdir().unwrap();
            prepare(folder.path());
            let watch = Watch::new(patterns.iter().copied()).unwrap().relative_to(folder.path());
            let (tell, seen) = unbounded_channel();
            let subject = Subject { broker: BrokerId(0), name: "api".to_owned(), watch };
            let files = Files::new(tell).unwrap();
            files.add(subject);
            Stage { folder, seen, files }
        }

        fn note(&mut self) -> String {
            match self.seen.blocking_recv().unwrap() {
                Seen::Note(words) => words,
                Seen::Changed(_, path) => panic!("{path} has changed"),
            }
        }

        fn changed(&mut self) -> String {
            match self.seen.blocking_recv().unwrap() {
                Seen::Changed(_, path) => path,
                Seen::Note(words) => panic!("{words}"),
            }
        }

        /// All of it at once: a file that is made and then written is two changes to whoever is slow in between.
        fn write(&self, path: &str, text: &str) {
            let path = self.folder.path().join(path);
            let mut whole = tempfile::NamedTempFile::new().unwrap();
            whole.write_all(text.as_bytes()).unwrap();
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            whole.persist(path).unwrap();
        }
    }

    fn with(path: &'static str) -> impl FnOnce(&Path) {
        move |folder| {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "one").unwrap();
        }
    }

    #[test]
    fn a_file_that_is_written_or_replaced_or_removed_has_changed() {
        let mut stage = Stage::of(&["src/**/*.js"], with("src/a/b.js"));
        assert_eq!(stage.note(), "api: watches 1 file");
        fs::write(stage.folder.path().join("src/a/b.js"), "two and more").unwrap();
        assert_eq!(stage.changed(), "src/a/b.js");
        stage.write("src/a/.b.js.swp", "another");
        fs::rename(stage.folder.path().join("src/a/.b.js.swp"), stage.folder.path().join("src/a/b.js"))
            .unwrap();
        assert_eq!(stage.changed(), "src/a/b.js");
        fs::remove_file(stage.folder.path().join("src/a/b.js")).unwrap();
        assert_eq!(stage.changed(), "src/a/b.js");
    }

    #[test]
    fn files_in_folders_that_come_later_are_seen_however_fast_they_come() {
        let mut stage = Stage::of(&["src/**/*.js"], |_| {});
        assert_eq!(stage.note(), "api: watch: `src/**/*.js` matches no file yet");
        assert_eq!(stage.note(), "api: watches 0 files");
        stage.write("src/x/y/z/deep.js", "one");
        assert_eq!(stage.changed(), "src/x/y/z/deep.js");
        stage.write("src/x/y/z/deep.js", "another one");
        assert_eq!(stage.changed(), "src/x/y/z/deep.js");
        fs::remove_dir_all(stage.folder.path().join("src")).unwrap();
        while fs::exists(stage.folder.path().join("src")).unwrap() {}
        assert_eq!(stage.changed(), "src/x/y/z/deep.js");
        stage.write("src/x/new.js", "one");
        assert_eq!(stage.changed(), "src/x/new.js");
    }

    #[test]
    fn what_no_pattern_matches_has_not_changed() {
        let mut stage = Stage::of(&["*.toml", "src/**/*.js"], with("src/a.js"));
        assert_eq!(stage.note(), "api: watch: `*.toml` matches no file yet");
        stage.note();
        stage.write("src/a.ts", "two");
        stage.write("src/node_modules/x/a.js", "two");
        stage.write("src/.git/a.js", "two");
        stage.write("sub/a.toml", "two");
        stage.write("b.toml", "last");
        assert_eq!(stage.changed(), "b.toml");
    }

    /// The link stands two folders above what is watched, and leads on by another.
    #[test]
    fn a_release_that_a_link_leads_to_is_watched_when_it_takes_the_place_of_another() {
        use std::os::unix::fs::symlink;
        let mut stage = Stage::of(&["current/src/lib/*.js"], |folder| {
            symlink("releases/latest", folder.join("current")).unwrap();
            for release in ["1", "2", "3"] {
                let lib = folder.join("releases").join(release).join("src/lib");
                fs::create_dir_all(&lib).unwrap();
                fs::write(lib.join("a.js"), release).unwrap();
            }
            symlink("1", folder.join("releases/latest")).unwrap();
        });
        assert_eq!(stage.note(), "api: watches 1 file");
        let turn = |link: &str, target: &str| {
            let (link, new) = (stage.folder.path().join(link), stage.folder.path().join("new"));
            symlink(target, &new).unwrap();
            fs::rename(new, link).unwrap();
        };
        turn("releases/latest", "2");
        let changed = stage.seen.blocking_recv();
        assert!(matches!(&changed, Some(Seen::Changed(_, path)) if path == "current/src/lib/a.js"));
        turn("current", "releases/3");
        assert_eq!(stage.changed(), "current/src/lib/a.js");
        stage.write("releases/3/src/lib/a.js", "edited");
        assert_eq!(stage.changed(), "current/src/lib/a.js");
    }

    #[test]
    fn a_folder_that_one_path_no_longer_leads_to_is_watched_by_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        fs::create_dir(at("one")).unwrap();
        std::os::unix::fs::symlink(at("one"), at("two")).unwrap();
        let watch = Watch::new(["one/*.js", "two/*.js"]).unwrap().relative_to(folder.path());
        let (tell, _seen) = unbounded_channel();
        let subject = Subject { broker: BrokerId(0), name: "api".to_owned(), watch };
        let watch = FileWatch::new().unwrap();
        let mut all = All { watch, folders: BTreeMap::new(), subjects: Vec::new() };
        all.begin(subject, &tell);
        fs::remove_file(at("two")).unwrap();
        assert!(all.look(&tell));
        all.watch.take();
        fs::write(at("one/a.js"), "one").unwrap();
        assert!(readable(all.watch.as_fd()));
    }

    #[test]
    fn one_more_is_watched_without_a_word_to_the_others() {
        let mut stage = Stage::of(&["*.js"], with("a.js"));
        assert_eq!(stage.note(), "api: watches 1 file");
        let watch = Watch::new(["*.toml"]).unwrap().relative_to(stage.folder.path());
        stage.write("b.toml", "one");
        stage.files.add(Subject { broker: BrokerId(1), name: "jobs".to_owned(), watch });
        assert_eq!(stage.note(), "jobs: watches 1 file");
        stage.write("a.js", "two and more");
        assert_eq!(stage.changed(), "a.js");
        stage.write("b.toml", "two and more");
        assert_eq!(stage.changed(), "b.toml");
    }

    #[test]
    fn the_thread_ends_with_its_owner() {
        let Stage { folder, mut seen, files } = Stage::of(&["*.js"], |_| {});
        drop(files);
        while seen.blocking_recv().is_some() {}
        drop(folder);
    }
}
