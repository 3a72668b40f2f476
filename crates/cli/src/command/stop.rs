//! `stop`: the whole app ends, after every worker has finished what it has.

use super::{Session, follow};
use crate::args::StopArgs;
use crate::exit::{Exit, Trouble};
use crate::progress::{Doing, Track};

/// The verb's own rule: only the whole app can be stopped, and only when that is said.
pub(crate) fn check(asked: &StopArgs) -> Result<(), Trouble> {
    match (asked.types.as_slice(), asked.all) {
        ([], true) => Ok(()),
        ([], false) => Err(Trouble::usage("stop ends the whole app, and asks you to say so")
            .help("`shiftboss stop --all`; to send the workers of one type home: `shiftboss drain TYPE`")),
        ([first, ..], _) => Err(Trouble::usage(format!("stop ends the whole app, not `{first}` alone"))
            .help(format!(
                "to send the workers of `{first}` home: `shiftboss drain {}`",
                asked.types.join(" ")
            ))),
    }
}

/// Runs the verb.
pub(crate) async fn run(session: &Session<'_>, asked: &StopArgs) -> Result<Exit, Trouble> {
    let status = session.status().await?;
    let call = session.client.stop(&session.options())?;
    let jobs = vec![follow::Job { call, track: Track::of_app(&status.app, Doing::Stop), listens: false }];
    if asked.no_wait { follow::leave(session, jobs).await } else { follow::follow(session, jobs).await }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(types: &[&str], all: bool) -> StopArgs {
        StopArgs { types: types.iter().map(|&word| word.to_owned()).collect(), all, no_wait: false }
    }

    #[test]
    fn a_type_is_sent_home_by_a_drain() {
        let trouble = check(&asked(&["api"], false)).unwrap_err();
        let help = "to send the workers of `api` home: `shiftboss drain api`";
        assert_eq!((trouble.exit, trouble.help.as_deref()), (Exit::Usage, Some(help)));
    }

    #[test]
    fn the_whole_app_ends_only_when_that_is_said() {
        assert_eq!(check(&asked(&[], false)).unwrap_err().exit, Exit::Usage);
        assert_eq!(check(&asked(&[], true)), Ok(()));
    }
}
