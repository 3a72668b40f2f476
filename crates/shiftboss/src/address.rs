//! Addresses to listen on, as people write them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One listener as asked for: an address and the name by which workers find it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    /// Handed to workers in `LISTEN_FDNAMES`; default the address as written.
    pub name: String,
    /// Where.
    pub address: Address,
    /// Who gets which connection.
    #[serde(default)]
    pub balance: Balance,
}

/// How new connections are shared out among the workers of a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Balance {
    /// All have one queue, and whoever is free takes the next.
    #[default]
    Shared,
    /// Each slot has a queue of its own, and each connection is drawn one whose worker is ready; TCP only.
    Lanes,
    /// The broker process accepts, and hands over to one worker after the other; Node programs only.
    RoundRobin,
}

impl Listen {
    /// A listener of this name, at an address that is read as [`Address`] reads it.
    ///
    /// # Errors
    /// Why the text is no address.
    pub fn new(name: impl Into<String>, address: &str) -> Result<Listen, AddressError> {
        Ok(Listen { name: name.into(), address: address.parse()?, balance: Balance::Shared })
    }
}

impl Listen {
    /// The same with another balance.
    #[must_use]
    pub fn balanced(self, balance: Balance) -> Listen {
        Listen { balance, ..self }
    }
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Address {
    /// `tcp://127.0.0.1:3000`, `tcp://[::1]:3000`; without a host (`tcp://:3000`) both IPv4 and IPv6.
    Tcp(Host),
    /// `udp://…`, as TCP.
    Udp(Host),
    /// `unix:///run/x.sock`: a stream socket at an absolute path.
    Unix(PathBuf),
}

/// Host and port of a network address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Host {
    /// Every address of the host, IPv4 and IPv6 with one socket.
    Any(u16),
    /// One address (or `0.0.0.0` / `[::]` for one family).
    One(SocketAddr),
}

impl Host {
    /// The port; 0 lets the kernel choose.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Host::Any(port) => port,
            Host::One(address) => address.port(),
        }
    }

    /// The same at another port.
    #[must_use]
    pub fn with_port(self, port: u16) -> Host {
        match self {
            Host::Any(_) => Host::Any(port),
            Host::One(mut address) => {
                address.set_port(port);
                Host::One(address)
            }
        }
    }

    /// The address to bind; for [`Host::Any`] the IPv6 wildcard, to be bound without `IPV6_V6ONLY`.
    #[must_use]
    pub fn to_bind(self) -> SocketAddr {
        match self {
            Host::Any(port) => SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port),
            Host::One(address) => address,
        }
    }
}

/// Why a text is no address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is no address: {why}")]
pub struct AddressError {
    text: String,
    why: &'static str,
}

impl AddressError {
    /// The reason alone, for a message that shows the text itself.
    #[must_use]
    pub fn why(&self) -> &'static str {
        self.why
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// Reads `tcp://HOST:PORT`, `udp://HOST:PORT`, `unix:///PATH`; a bare `PORT`, `:PORT` or `HOST:PORT` is TCP.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = |why| AddressError { text: text.to_owned(), why };
        if text.contains("{slot}") {
            return Err(wrong("an address of its own for each worker, by {slot}, is not in this version"));
        }
        if let Some(path) = text.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(wrong("a UNIX socket needs an absolute path, like unix:///run/app.sock"));
            }
            // sun_path holds 108 bytes with its end (unix(7)).
            if path.len() > 107 {
                return Err(wrong("the path of a UNIX socket may have at most 107 bytes"));
            }
            return Ok(Address::Unix(PathBuf::from(path)));
        }
        let (udp, rest) = match text.split_once("://") {
            Some(("tcp", rest)) => (false, rest),
            Some(("udp", rest)) => (true, rest),
            Some(_) => return Err(wrong("expected tcp://, udp:// or unix://")),
            None => (false, text),
        };
        let host = if let Ok(address) = rest.parse::<SocketAddr>() {
            Host::One(address)
        } else if let Ok(port) = rest.strip_prefix(':').unwrap_or(rest).parse::<u16>() {
            Host::Any(port)
        } else if let Some(port) = rest.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
            Host::One(SocketAddr::from(([127, 0, 0, 1], port)))
        } else {
            return Err(wrong("expected an IP address and a port, like tcp://127.0.0.1:3000 or tcp://:3000"));
        };
        Ok(if udp { Address::Udp(host) } else { Address::Tcp(host) })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = |f: &mut fmt::Formatter<'_>, scheme, host: &Host| match host {
            Host::Any(port) => write!(f, "{scheme}://:{port}"),
            Host::One(address) => write!(f, "{scheme}://{address}"),
        };
        match self {
            Address::Tcp(at) => host(f, "tcp", at),
            Address::Udp(at) => host(f, "udp", at),
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_people_write_them_and_print_as_the_file_has_them() {
        for (text, printed) in [
            ("tcp://:3000", "tcp://:3000"),
            ("3000", "tcp://:3000"),
            (":3000", "tcp://:3000"),
            ("127.0.0.1:80", "tcp://127.0.0.1:80"),
            ("localhost:80", "tcp://127.0.0.1:80"),
            ("udp://[::1]:53", "udp://[::1]:53"),
            ("unix:///run/x.sock", "unix:///run/x.sock"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), printed, "{text}");
        }
        for wrong in ["", "http://:80", "tcp://example:80", "tcp://:70000", "unix://run/x", "tcp://"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
