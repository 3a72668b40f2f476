//! The listeners of a broker: addresses with names, each address once in the whole file.

use std::collections::BTreeMap;

use toml::de::DeValue;

use super::keys;
use super::problem::{Findings, word};
use super::table::{Cell, Table};
use super::value;
use crate::address::{Address, Balance, Listen};

/// Which broker took which address.
pub(super) type Taken = BTreeMap<Address, String>;

pub(super) fn read(cell: &Cell<'_>, taken: &mut Taken, findings: &mut Findings) -> Option<Vec<Listen>> {
    let Some(items) = cell.items() else {
        findings.push(cell.expected("an array of addresses").help(example(cell)));
        return None;
    };
    let items: Vec<Cell<'_>> = items.collect();
    let known = findings.problems.len();
    let listens = items.iter().filter_map(|item| one(item, taken, findings)).collect();
    (findings.problems.len() == known).then_some(listens)
}

/// The array to write, with the address that was meant where it can be guessed.
fn example(cell: &Cell<'_>) -> String {
    let meant = match cell.value.get_ref() {
        DeValue::String(text) => text.parse::<Address>().ok(),
        DeValue::Integer(number) => number.as_str().parse::<Address>().ok(),
        DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => None,
    };
    let meant = meant.map_or("tcp://:3000".to_owned(), |address| address.to_string());
    format!("listen = [\"{}\"]", word(&meant))
}

fn one(cell: &Cell<'_>, taken: &mut Taken, findings: &mut Findings) -> Option<Listen> {
    match cell.value.get_ref() {
        DeValue::String(text) => {
            let address = address(cell, taken, findings)?;
            Some(Listen { name: text.clone().into_owned(), address, balance: Balance::Shared })
        }
        DeValue::Table(_) => {
            // An array's tables have no word of their own to point at.
            let whole = Cell { key_span: cell.value.span(), ..cell.clone() };
            let table = Table::open(&whole, &keys::LISTEN, findings)?;
            let name = table.read("name", findings, name);
            let example = "\"tcp://:3000\"";
            let mut written = "";
            let address = table.require("address", example, findings, |cell, findings| {
                written = cell.text(findings)?;
                address(cell, taken, findings)
            })?;
            let balance = table.read("balance", findings, |cell, findings| {
                balance(cell, findings).filter(|balance| fits(*balance, &address, cell, findings))
            });
            Some(Listen { name: name.or(written.to_owned()), address, balance: balance.or(Balance::Shared) })
        }
        DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_) => {
            findings.push(cell.expected("an address").help(example(cell)));
            None
        }
    }
}

fn balance(cell: &Cell<'_>, findings: &mut Findings) -> Option<Balance> {
    let known =
        [("shared", Balance::Shared), ("round-robin", Balance::RoundRobin), ("lanes", Balance::Lanes)];
    value::choice(cell, &known, findings)
}

fn fits(balance: Balance, address: &Address, cell: &Cell<'_>, findings: &mut Findings) -> bool {
    let why = match (balance, address) {
        (Balance::Shared | Balance::RoundRobin, _) | (Balance::Lanes, Address::Tcp(_)) => return true,
        (Balance::Lanes, Address::Unix(_)) => "a path has one socket, and one queue",
        (Balance::Lanes, Address::Udp(_)) => "only TCP tells a new client from one that goes on",
    };
    findings.push(cell.problem("lanes need a tcp:// address").label(why));
    false
}

fn address(cell: &Cell<'_>, taken: &mut Taken, findings: &mut Findings) -> Option<Address> {
    let text = cell.text(findings)?;
    if text.contains("{slot}") {
        findings.push(cell.later("\"…{slot}…\""));
        return None;
    }
    if text.contains('\0') {
        findings.push(cell.problem("it holds a NUL byte, which no system call takes"));
        return None;
    }
    let address: Address = match text.parse() {
        Ok(address) => address,
        Err(error) => {
            findings.push(cell.problem(format_args!("`{}` is no address", word(text))).label(error.why()));
            return None;
        }
    };
    // Port 0 is another one each time.
    let fixed = match &address {
        Address::Tcp(host) | Address::Udp(host) => host.port() != 0,
        Address::Unix(_) => true,
    };
    let broker = cell.broker.unwrap_or_default();
    match taken.get(&address).filter(|_| fixed) {
        Some(owner) if owner == broker => {
            findings.push(cell.problem(format_args!("`{}` is listed twice", word(&address.to_string()))));
            None
        }
        Some(owner) => {
            let what = format!("`{}` is taken by broker `{}`", word(&address.to_string()), word(owner));
            findings.push(cell.problem(what));
            None
        }
        None => {
            taken.insert(address.clone(), broker.to_owned());
            Some(address)
        }
    }
}

/// A name as `sd_listen_fds_with_names(3)` allows it: it stands in `LISTEN_FDNAMES` between colons.
fn name(cell: &Cell<'_>, findings: &mut Findings) -> Option<String> {
    let name = value::plain_text(cell, findings)?;
    let fits = name.len() <= 255 && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    if !fits {
        let what = format!("`{}` is no name of a listener", word(name));
        findings.push(cell.problem(what).label("up to 255 printable ASCII characters but space and `:`"));
    }
    fits.then(|| name.to_owned())
}
