//! The programs that `cargo xtask bench` and `cargo xtask messages` measure: an app that is its own workers, and beside it
//! the same by hand. `figures FOLDER ROLE [WORD...]`; the folder is for its socket and notes. What was measured goes to
//! standard output.

mod by_hand;
mod calls;
mod exits;
mod hundred;
mod kept;
mod spawns;
mod stream;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use shiftboss::{App, WorkerContext};

type Done = Result<(), Box<dyn Error>>;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let Some((folder, role)) = words.split_first() else {
        eprintln!("usage: figures FOLDER ROLE [WORD...]; `cargo xtask bench` runs it");
        return Ok(ExitCode::from(2));
    };
    let folder = Path::new(folder);
    if shiftboss::worker_type().is_some() {
        work(folder, role)?;
        return Ok(ExitCode::SUCCESS);
    }
    match *role {
        ["stream", how, kept, count] => {
            stream::take(&app(folder, kept == "kept")?, how, count.parse()?)?;
        }
        ["stream-by-hand", how, count] => by_hand::take(how, count.parse()?)?,
        ["send-by-hand", how, count] => by_hand::send(how, count.parse()?)?,
        ["call", count] => calls::ask(&app(folder, false)?, count.parse()?)?,
        ["call-by-hand", count] => by_hand::ask(count.parse()?)?,
        ["answer-by-hand"] => by_hand::answer()?,
        ["spawn", size, count] => spawns::measure(&app(folder, false)?, size, count.parse()?)?,
        ["exits", count, workers] => exits::count(&app(folder, false)?, count.parse()?, workers.parse()?)?,
        ["kept", workers] => kept::note(&app(folder, true)?, folder, workers.parse()?)?,
        _ => return Err(format!("no role is called {role:?}").into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn app(folder: &Path, is_kept: bool) -> Result<App, Box<dyn Error>> {
    let builder = App::builder("figures").control_socket(folder.join("control"));
    Ok(if is_kept { builder.own_process().build()? } else { builder.build()? })
}

fn work(folder: &Path, role: &[&str]) -> Done {
    let context = WorkerContext::from_environment()?;
    match *role {
        ["stream", how, _, count] => stream::send(&context, how, count.parse()?),
        ["call", _] => calls::answer(&context),
        ["exits", ..] => exits::send(&context),
        ["kept", _] => kept::send(&context, folder),
        _ => Err(format!("no worker has this role: {role:?}").into()),
    }
}
