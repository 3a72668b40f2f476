//! `man`: the manual page of the command or of one verb, in roff.

use clap::CommandFactory as _;

use crate::args::{Cli, ManArgs};
use crate::exit::{Exit, Trouble};
use crate::output::Output;
use crate::text;

/// Runs the verb.
pub(crate) fn run(output: &Output, asked: &ManArgs) -> Result<Exit, Trouble> {
    let command = command(asked.verb.as_deref())?;
    // Built, a subcommand is called "shiftboss-recycle" for display.
    let title = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .title(title)
        .render(&mut page)
        .map_err(|error| Trouble::new(Exit::Failed, format!("cannot write the page: {error}")))?;
    output.line(String::from_utf8_lossy(&page).trim_end())?;
    Ok(Exit::Done)
}

fn command(verb: Option<&str>) -> Result<clap::Command, Trouble> {
    let mut all = Cli::command();
    all.build();
    let Some(verb) = verb else { return Ok(all) };
    if let Some(known) = all.find_subcommand(verb) {
        return Ok(known.clone());
    }
    let verbs: Vec<&str> =
        all.get_subcommands().filter(|verb| !verb.is_hide_set()).map(clap::Command::get_name).collect();
    let trouble = Trouble::usage(format!("`{verb}` is no verb: expected one of {}", verbs.join(", ")));
    Err(match text::nearest(verb, verbs) {
        Some(near) => trouble.help(format!("did you mean `{near}`?")),
        None => trouble,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::capture;

    #[test]
    fn the_command_and_every_verb_have_a_page() {
        for (verb, title) in [(None, "shiftboss"), (Some("recycle"), "shiftboss-recycle")] {
            let (output, written) = capture::output();
            let asked = ManArgs { verb: verb.map(str::to_owned) };
            assert_eq!(run(&output, &asked), Ok(Exit::Done));
            assert!(written.data().contains(&format!(".TH {title} 1")), "{}", written.data());
        }
    }

    #[test]
    fn an_unknown_verb_gets_the_nearest() {
        let trouble = command(Some("recycel")).unwrap_err();
        assert_eq!((trouble.exit, trouble.help.as_deref()), (Exit::Usage, Some("did you mean `recycle`?")));
    }
}
