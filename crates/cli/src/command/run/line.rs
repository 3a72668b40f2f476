//! An app straight from the command line: one broker, named after its program.

use shiftboss::address::{Address, Balance, Listen};
use shiftboss::guess::{self, Guess};
use shiftboss::options::Kind;
use shiftboss::options::UpgradeWhen;
use shiftboss::{AppOptions, BrokerOptions};

use crate::args::{self, RunArgs};
use crate::exit::{Exit, Trouble};
use crate::output::Output;

pub(super) fn app(asked: &RunArgs, output: &Output) -> Result<AppOptions, Trouble> {
    let name = name(&asked.command);
    let mut broker = BrokerOptions::new(asked.command.iter().cloned());
    broker.workers = match asked.workers {
        None => 1,
        Some(0) => return Err(Trouble::usage("-w 0 would keep no worker alive").help("expected 1 or more")),
        Some(workers) => workers,
    };
    broker.listen = listen(&asked.listen)?;
    broker.kind = match asked.kind {
        Some(args::Kind::Node) => {
            broker.command = look_at(&broker)?.command;
            Kind::Node
        }
        Some(args::Kind::Notify) => Kind::Notify,
        Some(args::Kind::Plain) => Kind::Plain,
        None => take_for(&mut broker, output)?,
    };
    Ok(AppOptions { app: name.clone(), brokers: vec![(name, broker)], upgrade: UpgradeWhen::Asked })
}

fn listen(asked: &[String]) -> Result<Vec<Listen>, Trouble> {
    let mut listen: Vec<Listen> = Vec::new();
    for text in asked {
        let address: Address = text
            .parse()
            .map_err(|error: shiftboss::address::AddressError| Trouble::usage(format!("-p {error}")))?;
        if listen.iter().any(|known| known.address == address) {
            return Err(Trouble::new(Exit::Usage, format!("-p {text} is given twice")));
        }
        listen.push(Listen { name: address.to_string(), address, balance: Balance::Shared });
    }
    Ok(listen)
}

/// What the command looks like, which is said.
fn take_for(broker: &mut BrokerOptions, output: &Output) -> Result<Kind, Trouble> {
    let guess = look_at(broker)?;
    match guess.kind {
        Kind::Node if guess.command == broker.command => {
            output.say("kind = node, guessed: a worker of Node's cluster; any other program: --kind plain");
        }
        Kind::Node => output.say(&format!("kind = node, guessed; runs {}", guess.command.join(" "))),
        _ => output.say("kind = plain, guessed; a program that says READY=1 (sd_notify): --kind notify"),
    }
    broker.command = guess.command;
    Ok(guess.kind)
}

/// A launcher of Node programs is looked through.
fn look_at(broker: &BrokerOptions) -> Result<Guess, Trouble> {
    guess::guess(&broker.command, None).map_err(|launcher| Trouble::usage(launcher.to_string()))
}

/// "server" of `python3 -u server.py`, "web" of `./web -v`.
fn name(command: &[String]) -> String {
    let program = command.first().map_or("", |program| file_name(program));
    let script = command[1.min(command.len())..].iter().find(|word| !word.starts_with('-'));
    let name = match script.map(|script| file_name(script)) {
        Some(script) if INTERPRETERS.iter().any(|known| program.starts_with(known)) => script,
        Some(_) | None => program,
    };
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| if stem.is_empty() { name } else { stem });
    let fit = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let name: String = stem.chars().map(fit).take(64).collect();
    let name = name.trim_matches(['-', '_']);
    if name.is_empty() { "app".to_owned() } else { name.to_owned() }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Programs that say nothing about what they run.
const INTERPRETERS: [&str; 10] =
    ["python", "node", "ruby", "perl", "php", "bash", "sh", "deno", "bun", "java"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_named_after_what_runs() {
        let named = |line: &str| name(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        for (line, expected) in [
            ("./server --verbose", "server"),
            ("/usr/bin/python3 -u app/web.py 8", "web"),
            ("node server.js", "server"),
            ("python3", "python3"),
            ("uvicorn app:app --fd 3", "uvicorn"),
            ("./weird name!", "weird"),
            ("./.hidden", "hidden"),
            ("../..", "app"),
        ] {
            assert_eq!(named(line), expected, "{line}");
        }
    }
}
