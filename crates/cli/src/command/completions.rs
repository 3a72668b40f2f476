//! `completions`: a script that lets a shell complete verbs and options.

use clap::CommandFactory as _;

use crate::args::{Cli, CompletionsArgs};
use crate::exit::{Exit, Trouble};
use crate::output::Output;

/// Runs the verb.
pub(crate) fn run(output: &Output, asked: &CompletionsArgs) -> Result<Exit, Trouble> {
    let mut script = Vec::new();
    clap_complete::generate(asked.shell, &mut offered(), "shiftboss", &mut script);
    output.line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Exit::Done)
}

/// The command line with the verbs that are shown to people: the hidden ones are ours alone.
fn offered() -> clap::Command {
    let whole = Cli::command();
    let visible = whole.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned();
    clap::Command::new("shiftboss")
        .version(env!("CARGO_PKG_VERSION"))
        .propagate_version(true)
        .disable_help_subcommand(true)
        .args(whole.get_arguments().cloned())
        .subcommands(visible)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::capture;

    #[test]
    fn every_shell_gets_a_script_with_the_verbs() {
        use clap::ValueEnum as _;
        for &shell in clap_complete::Shell::value_variants() {
            let (output, written) = capture::output();
            assert_eq!(run(&output, &CompletionsArgs { shell }), Ok(Exit::Done));
            assert!(written.data().contains("recycle"), "{shell}");
            for hidden in ["demo-worker", "demo-load", "demo__load"] {
                assert!(!written.data().contains(hidden), "{shell}: {hidden}");
            }
        }
    }
}
