//! Where words go: data on standard output, talk on standard error; whether they are coloured, how wide they may be.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::AsFd;

use anstyle::{AnsiColor, Style};
use rustix::termios;

use crate::args::{Color, Global};
use crate::exit::{Exit, Trouble};

/// Both streams, and how to use them.
pub(crate) struct Output {
    /// Lines for programs instead of people.
    pub(crate) json: bool,
    /// `-q`: no talk but errors.
    pub(crate) quiet: bool,
    /// `-v`: also what is read and asked, and how long it took.
    pub(crate) verbose: bool,
    /// What standard output is.
    pub(crate) out: Look,
    /// What standard error is.
    pub(crate) err: Look,
    /// How this command line said which app it means, to be repeated in commands that we propose.
    selection: String,
    data: RefCell<Box<dyn Write>>,
    talk: RefCell<Box<dyn Write>>,
}

/// What a stream can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// It can be drawn on again and again.
    pub(crate) redraw: bool,
    /// It may be coloured.
    pub(crate) color: bool,
    /// Columns; 80 where that cannot be known.
    pub(crate) width: usize,
    /// Lines; 24 where that cannot be known.
    pub(crate) height: usize,
}

impl Output {
    /// Standard output and standard error.
    pub(crate) fn standard(global: &Global) -> Self {
        let variable = |name: &str| std::env::var_os(name);
        Output {
            json: global.json,
            quiet: global.quiet,
            verbose: global.verbose > 0,
            out: Look::of(&io::stdout(), global.color, variable),
            err: Look::of(&io::stderr(), global.color, variable),
            selection: selection(global),
            data: RefCell::new(Box::new(io::stdout())),
            talk: RefCell::new(Box::new(io::stderr())),
        }
    }

    /// A line of data on standard output. A reader that has gone ends the command without a word.
    pub(crate) fn line(&self, text: &str) -> Result<(), Trouble> {
        let text = if self.json { text.into() } else { self.selected(text) };
        let mut data = self.data.borrow_mut();
        writeln!(data, "{text}").and_then(|()| data.flush()).map_err(|error| unwritten(&error))
    }

    /// A line of talk on standard error, unless `-q`.
    pub(crate) fn say(&self, text: &str) {
        if !self.quiet {
            self.draw(&format!("{}\n", self.selected(text)));
        }
    }

    /// A line of talk for whoever wants to know more, by `-v`.
    pub(crate) fn tell(&self, text: impl FnOnce() -> String) {
        if self.verbose {
            self.say(&text());
        }
    }

    /// With every command that the text proposes meant for the same app.
    fn selected<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.selection.is_empty() || !text.contains(COMMAND) {
            return text.into();
        }
        // `run` makes an app, it does not look for one.
        // A command that says so by itself means another app.
        let says = |rest: &str| ["run", "--app ", "--socket "].iter().any(|word| rest.starts_with(word));
        let meant = |rest: &str| if says(rest) { "" } else { self.selection.as_str() };
        let mut parts = text.split(COMMAND);
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, rest| text + COMMAND + meant(rest) + rest).into()
    }

    /// Text for standard error as it is, with its movements.
    pub(crate) fn draw(&self, text: &str) {
        let mut talk = self.talk.borrow_mut();
        // Nobody is left who could be told.
        let _ = talk.write_all(text.as_bytes()).and_then(|()| talk.flush());
    }

    /// What went wrong.
    pub(crate) fn trouble(&self, trouble: &Trouble) {
        if trouble.error.is_empty() {
            return;
        }
        let text = self.selected(&trouble.render()).into_owned();
        let text = match text.strip_prefix("error:") {
            Some(rest) => format!("{}{rest}", self.err.paint("error:", BAD)),
            None => text,
        };
        self.draw(&format!("{text}\n"));
    }
}

impl Look {
    fn of(stream: &impl AsFd, asked: Color, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let terminal = termios::isatty(stream);
        let size = termios::tcgetwinsize(stream).ok().filter(|size| terminal && size.ws_col > 0);
        Look {
            redraw: terminal && !is_dumb(&variable),
            color: colored(asked, terminal, &variable),
            width: size.map_or(80, |size| usize::from(size.ws_col)),
            height: size.map_or(24, |size| usize::from(size.ws_row)),
        }
    }

    /// The text in that style, if this stream may be coloured.
    pub(crate) fn paint(self, text: &str, style: Style) -> String {
        if self.color { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

/// What could not be written to standard output; without a word if its reader has gone.
pub(crate) fn unwritten(error: &io::Error) -> Trouble {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Trouble::new(Exit::Failed, ""),
        _ => Trouble::new(Exit::Failed, format!("cannot write to standard output: {error}")),
    }
}

/// "--app shop ", as a shell reads it.
fn selection(global: &Global) -> String {
    let words = [
        global.socket.as_ref().map(|path| ("--socket", path.display().to_string())),
        global.app.as_ref().map(|name| ("--app", name.clone())),
        global.config.as_ref().map(|path| ("--config", path.display().to_string())),
    ];
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    let quoted = |word: String| match word.chars().all(plain) {
        true => word,
        false => format!("'{}'", word.replace('\'', "'\\''")),
    };
    let first = words.into_iter().flatten().next();
    first.map_or_else(String::new, |(flag, word)| format!("{flag} {} ", quoted(word)))
}

/// `--color` decides; else a terminal is coloured unless `NO_COLOR` (no-color.org) is set and not empty, or it is dumb.
fn colored(asked: Color, terminal: bool, variable: &impl Fn(&str) -> Option<OsString>) -> bool {
    match asked {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => {
            terminal && variable("NO_COLOR").is_none_or(|value| value.is_empty()) && !is_dumb(variable)
        }
    }
}

fn is_dumb(variable: &impl Fn(&str) -> Option<OsString>) -> bool {
    variable("TERM").is_some_and(|term| term == "dumb")
}

/// How a proposed command begins.
const COMMAND: &str = "`shiftboss ";
/// As wanted.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// On its way.
pub(crate) const BUSY: Style = AnsiColor::Yellow.on_default();
/// Failed.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
/// Headings.
pub(crate) const FAINT: Style = Style::new().dimmed();

#[cfg(test)]
pub(crate) mod capture {
    //! An output that remembers.

    use std::rc::Rc;

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Rc<RefCell<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Memory {
        fn text(&self) -> String {
            String::from_utf8(self.0.borrow().clone()).unwrap()
        }
    }

    /// What has been written to both streams.
    pub(crate) struct Written(Memory, Memory);

    impl Written {
        pub(crate) fn data(&self) -> String {
            self.0.text()
        }

        pub(crate) fn talk(&self) -> String {
            self.1.text()
        }
    }

    /// 80 columns, no terminal, no colour.
    pub(crate) const PLAIN: Look = Look { redraw: false, color: false, width: 80, height: 24 };

    pub(crate) fn output() -> (Output, Written) {
        let (data, talk) = (Memory::default(), Memory::default());
        let output = Output {
            json: false,
            quiet: false,
            verbose: false,
            out: PLAIN,
            err: PLAIN,
            selection: String::new(),
            data: RefCell::new(Box::new(data.clone())),
            talk: RefCell::new(Box::new(talk.clone())),
        };
        (output, Written(data, talk))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(set: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
        move |name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
    }

    #[test]
    fn only_a_terminal_is_coloured_by_itself() {
        assert!(colored(Color::Auto, true, &with(&[])));
        assert!(!colored(Color::Auto, false, &with(&[])));
        assert!(!colored(Color::Auto, true, &with(&[("NO_COLOR", "1")])));
        assert!(colored(Color::Auto, true, &with(&[("NO_COLOR", "")])), "an empty NO_COLOR is none");
        assert!(!colored(Color::Auto, true, &with(&[("TERM", "dumb")])));
    }

    #[test]
    fn the_command_line_has_the_last_word_on_colour() {
        assert!(colored(Color::Always, false, &with(&[("NO_COLOR", "1")])));
        assert!(!colored(Color::Never, true, &with(&[])));
    }

    #[test]
    fn a_proposed_command_is_meant_for_the_same_app() {
        let (mut output, written) = capture::output();
        output.selection = "--app shop ".to_owned();
        output.say("`shiftboss wait api --for drained` waits for it");
        output.trouble(&Trouble::usage("wrong").help("`shiftboss status`"));
        output.say("`shiftboss --app other stop --all`");
        output.json = true;
        output.line("{\"reason\":\"`shiftboss x`\"}").unwrap();
        let talk = "`shiftboss --app shop wait api --for drained` waits for it\n\
                    error: wrong\nhelp: `shiftboss --app shop status`\n\
                    `shiftboss --app other stop --all`\n";
        assert_eq!(
            (written.talk().as_str(), written.data().as_str()),
            (talk, "{\"reason\":\"`shiftboss x`\"}\n")
        );
    }

    #[test]
    fn what_is_told_with_verbose_is_silent_without() {
        let (mut output, written) = capture::output();
        output.tell(|| "never".to_owned());
        output.verbose = true;
        output.tell(|| "more".to_owned());
        assert_eq!((written.talk().as_str(), written.data().as_str()), ("more\n", ""));
    }

    #[test]
    fn quiet_silences_talk_and_not_errors() {
        let (mut output, written) = capture::output();
        output.quiet = true;
        output.say("talk");
        output.trouble(&Trouble::usage("wrong"));
        output.line("data").unwrap();
        assert_eq!((written.talk().as_str(), written.data().as_str()), ("error: wrong\n", "data\n"));
    }
}
