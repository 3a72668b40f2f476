//! `demo`: the whole promise, shown on built-in workers.

use crate::args::{DemoArgs, Global};
use crate::demo::tour;
use crate::exit::{Exit, Trouble};
use crate::output::Output;

/// Runs the verb.
pub(crate) fn run(global: &Global, args: &DemoArgs, output: &Output) -> Result<Exit, Trouble> {
    if global.config.is_some() || global.app.is_some() || global.socket.is_some() {
        return Err(Trouble::usage("the demo runs an app of its own")
            .help("leave out --config, --app and --socket; `shiftboss run` runs yours"));
    }
    tour::run(args.seconds, output)
}
