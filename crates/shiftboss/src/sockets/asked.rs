//! Listeners that workers have asked for: `listen` in a worker of Node's `cluster` asks its primary. Whoever asks for the
//! same has the same socket, in whatever broker; it belongs to the broker whose worker was the first.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use shiftboss_channel::node::{Kind, Query};
use shiftboss_core::id::{BrokerId, Slot};

use super::Sockets;
use crate::address::{Address, Balance, Host};
use crate::keeper::Keeper;
use crate::keys::Key;
use crate::os::file_id::{FileId, Noted};
use crate::os::listener::{BindError, Listener, allow};
use crate::os::memory;

/// Where somebody wants to listen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wish {
    pub(crate) address: Address,
    /// Of port 0: which of several.
    index: u64,
    /// Of a path: rights to give to everybody.
    mode: u32,
}

/// What is held beside a socket that was asked for.
#[derive(Serialize, Deserialize)]
struct Note {
    #[serde(flatten)]
    wish: Wish,
    /// Which file the socket's is; none if it has none, or that was not noted, as by an older version.
    #[serde(default)]
    file: Option<FileId>,
}

/// A socket, and for which wish it was bound.
pub(crate) struct Asked {
    pub(super) wish: Wish,
    pub(super) listener: Listener,
    /// Its broker is drained: it is open only as long as others use it.
    pub(super) is_left: bool,
}

impl Wish {
    /// # Errors
    /// EINVAL for what is no address, or a descriptor of the primary: nothing is lent.
    pub(crate) fn of(query: &Query) -> Result<Wish, Errno> {
        let is_only_v6 = query.flags.unwrap_or(0) & 1 != 0;
        let host = || {
            let port = query.port.and_then(|port| u16::try_from(port).ok()).ok_or(Errno::INVAL)?;
            let Some(address) = &query.address else { return Ok(Host::Any(port)) };
            let address: IpAddr = address.parse().map_err(|_| Errno::INVAL)?;
            let both = address.is_ipv6() && address.is_unspecified() && !is_only_v6;
            Ok(if both { Host::Any(port) } else { Host::One(SocketAddr::new(address, port)) })
        };
        let address = match query.address_type {
            Kind::Tcp4 | Kind::Tcp6 => Address::Tcp(host()?),
            Kind::Udp4 | Kind::Udp6 => Address::Udp(host()?),
            Kind::Path => {
                let path =
                    query.address.as_deref().filter(|path| path.starts_with('/') && !path.contains('\0'));
                Address::Unix(PathBuf::from(path.ok_or(Errno::INVAL)?))
            }
            Kind::Other => return Err(Errno::INVAL),
        };
        let rights = |asked: bool, rights| if asked { rights } else { 0 };
        Ok(Wish {
            index: if port_of(&address) == Some(0) { query.index } else { 0 },
            address,
            mode: rights(query.readable_all, 0o444) | rights(query.writable_all, 0o222),
        })
    }

    /// Has the socket that was bound for it held, with itself.
    fn deposit(
        &self,
        place: u32,
        socket: BorrowedFd<'_>,
        file: Option<FileId>,
        keeper: &Keeper,
        broker: BrokerId,
    ) -> io::Result<()> {
        let note = Note { wish: self.clone(), file };
        let note = memory::sealed("shiftboss-asked", &serde_json::to_vec(&note)?)?;
        keeper.deposit(Key::Listener(broker, place), &[socket, note.as_fd()], 0)
    }

    /// By which it is the same wish.
    fn is_for(&self, other: &Wish) -> bool {
        (&self.address, self.index) == (&other.address, other.index)
    }

    /// Whether a listener of this address, declared as that one, is what is meant: the port decides where either takes every
    /// address.
    fn is_met_by(&self, bound: &Address, declared: &Address, before: u64) -> bool {
        let same_port = match (port_of(&self.address), port_of(declared)) {
            (Some(0), Some(0)) => self.index == before,
            (Some(0), _) | (None, _) => false,
            (port, declared) => port == declared || port == port_of(bound),
        };
        match (&self.address, bound) {
            (Address::Tcp(asked), Address::Tcp(bound)) | (Address::Udp(asked), Address::Udp(bound)) => {
                same_port && (is_every(*asked) || is_every(*bound) || ip(*asked) == ip(*bound))
            }
            (Address::Unix(asked), Address::Unix(bound)) => asked == bound,
            (Address::Tcp(_) | Address::Udp(_) | Address::Unix(_), _) => false,
        }
    }
}

fn port_of(address: &Address) -> Option<u16> {
    match address {
        Address::Tcp(host) | Address::Udp(host) => Some(host.port()),
        Address::Unix(_) => None,
    }
}

fn ip(host: Host) -> IpAddr {
    host.to_bind().ip()
}

fn is_every(host: Host) -> bool {
    ip(host).is_unspecified()
}

impl Sockets {
    /// The declared listener that is meant.
    pub(crate) fn declared(&self, wish: &Wish) -> Option<u32> {
        let mut any_ports = 0;
        for (place, (bound, declared)) in (0..).zip(self.bound.iter().zip(&self.wanted)) {
            let Some(bound) = bound.all().first() else { continue };
            if wish.is_met_by(bound.address(), &declared.address, any_ports) {
                return Some(place);
            }
            any_ports += u64::from(port_of(&declared.address) == Some(0));
        }
        None
    }

    /// The listener that somebody else has asked for in the same words.
    pub(crate) fn asked_before(&self, wish: &Wish) -> Option<u32> {
        self.asked.iter().find(|(_, asked)| asked.wish.is_for(wish)).map(|(place, _)| *place)
    }

    /// Binds what is asked for, and has it held by the keeper; its place and its address as bound.
    ///
    /// # Errors
    /// As errno(3) has it.
    pub(crate) fn ask(
        &mut self,
        wish: Wish,
        keeper: Option<&Keeper>,
        broker: BrokerId,
    ) -> Result<(u32, String), Errno> {
        if self.asked.len() >= MOST_ASKED {
            return Err(Errno::MFILE);
        }
        let place = self.asked.keys().next_back().map_or(FIRST_ASKED, |last| last + 1);
        let listener = Listener::bind(&wish.address, true).map_err(|error| errno_of(&error))?;
        let io = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::NOBUFS);
        if let Address::Unix(path) = &wish.address {
            allow(path, wish.mode).map_err(io)?;
        }
        if let Some(keeper) = keeper {
            wish.deposit(place, listener.as_fd(), listener.file(), keeper, broker).map_err(io)?;
        }
        let address = listener.address().to_string();
        self.asked.insert(place, Asked { wish, listener, is_left: false });
        Ok((place, address))
    }

    /// Goes on with one that another process has bound.
    pub(crate) fn adopt_asked(&mut self, place: u32, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let mut descriptors = descriptors.into_iter();
        let (Some(socket), Some(note)) = (descriptors.next(), descriptors.next()) else { return Ok(()) };
        let Note { wish, file } = serde_json::from_slice(&memory::read(note.as_fd())?)?;
        let listener = Listener::adopt(Noted { socket, file }, &wish.address)?;
        self.asked.insert(place, Asked { wish, listener, is_left: false });
        Ok(())
    }

    /// The places of those that were asked for.
    pub(crate) fn asked_places(&self) -> Vec<u32> {
        self.asked.keys().copied().collect()
    }

    /// Those that were asked for: their places and addresses.
    pub(crate) fn asked(&self) -> impl Iterator<Item = (u32, String)> {
        self.asked.iter().map(|(place, asked)| (*place, asked.listener.address().to_string()))
    }

    /// The broker is drained: what was asked for is open only for others.
    pub(crate) fn leave_asked(&mut self) {
        self.asked.values_mut().for_each(|asked| asked.is_left = true);
    }

    /// Whether any are those of a drained broker, open for others or shut.
    pub(crate) fn has_left(&self) -> bool {
        self.asked.values().any(|asked| asked.is_left)
    }

    /// Shuts what was left open for other brokers and is not lent any more; how many connections were reset.
    pub(crate) fn shut_left(&mut self, is_lent: impl Fn(u32) -> bool) -> u64 {
        let left = self.asked.iter_mut().filter(|(place, asked)| asked.is_left && !is_lent(**place));
        left.map(|(_, asked)| u64::from(asked.listener.shut().unwrap_or(0))).sum()
    }

    /// Keeps new clients of one waiting.
    pub(crate) fn quiet_asked(&mut self, place: u32) {
        if let Some(asked) = self.asked.get_mut(&place) {
            // As of those that are declared.
            let _ = asked.listener.refuse_new();
        }
    }

    /// How many connections wait in its queue, if new ones are kept waiting.
    pub(crate) fn queued_at(&self, place: u32) -> u32 {
        let quiet = self.asked.get(&place).filter(|asked| asked.listener.is_quiet());
        quiet.map_or(0, |asked| asked.listener.queued().unwrap_or(0))
    }

    /// Lends one to another broker: it is open, also if its own is drained.
    pub(crate) fn lend(&mut self, place: u32) {
        if let Some(asked) = self.asked.get_mut(&place) {
            // What cannot be opened is opened with the next resume.
            let _ = asked.listener.reopen();
        }
    }

    /// Closes one of those.
    pub(crate) fn close(&mut self, place: u32, keeper: Option<&Keeper>, broker: BrokerId) {
        self.asked.remove(&place);
        let shared = self.shared.remove(&place);
        if let Some(keeper) = keeper {
            keeper.forget(Key::Listener(broker, place));
            if shared.is_some() {
                keeper.forget(Key::Shared(broker, place));
            }
        }
    }

    /// Whether whoever says to listen there means this place.
    pub(crate) fn is_meant(&self, place: u32, query: &Query) -> bool {
        let (Some(listener), Ok(wish)) = (self.at(place), Wish::of(query)) else { return false };
        match (&wish.address, listener.address()) {
            // The real port by now, at whatever address it was asked for.
            (Address::Tcp(said), Address::Tcp(bound)) | (Address::Udp(said), Address::Udp(bound)) => {
                said.port() == bound.port()
            }
            (Address::Unix(said), Address::Unix(bound)) => said == bound,
            (Address::Tcp(_) | Address::Udp(_) | Address::Unix(_), _) => false,
        }
    }

    /// The socket at this place; one of lanes stands for all.
    pub(crate) fn at(&self, place: u32) -> Option<&Listener> {
        let declared = usize::try_from(place).ok().and_then(|place| self.bound.get(place));
        match declared {
            Some(bound) => bound.all().first(),
            None => self.asked.get(&place).map(|asked| &asked.listener),
        }
    }

    /// What the worker of a slot is given of it.
    pub(crate) fn given(&self, place: u32, slot: Option<Slot>) -> Option<BorrowedFd<'_>> {
        let declared = usize::try_from(place).ok().and_then(|place| self.descriptor_for(place, slot));
        declared.or_else(|| self.asked.get(&place).map(|asked| asked.listener.as_fd()))
    }

    /// As [`Sockets::mend`], of those that were asked for.
    pub(super) fn mend_asked(
        &mut self,
        opens: bool,
        keeper: Option<&Keeper>,
        broker: BrokerId,
        mended: &mut impl FnMut(&Address, OwnedFd),
    ) -> Result<(), (String, BindError)> {
        let mut result = Ok(());
        for (place, Asked { wish, listener, .. }) in &mut self.asked {
            if !opens && !listener.is_to_listen() {
                continue;
            }
            let hold = |socket: BorrowedFd<'_>, file| {
                keeper.map_or(Ok(()), |keeper| wish.deposit(*place, socket, file, keeper, broker))
            };
            match listener.mend(true, wish.mode, hold) {
                Ok(before) => before.into_iter().for_each(|before| mended(listener.address(), before)),
                Err(error) => result = Err((listener.address().to_string(), error)),
            }
        }
        result
    }

    pub(super) fn asked_mut(&mut self) -> impl Iterator<Item = &mut Listener> {
        self.asked.values_mut().map(|asked| &mut asked.listener)
    }

    /// Whether its connections are accepted here and handed over.
    pub(crate) fn is_by_turns(&self, place: u32) -> bool {
        let declared = usize::try_from(place).ok().and_then(|place| self.wanted.get(place));
        declared.is_some_and(|listen| match (listen.balance, &listen.address) {
            (Balance::RoundRobin, Address::Tcp(_) | Address::Unix(_)) => true,
            // Datagrams come one by one in any case.
            (Balance::RoundRobin, Address::Udp(_)) | (Balance::Shared | Balance::Lanes, _) => false,
        })
    }

    /// What all workers at this listener have of the first that has any: JSON.
    pub(crate) fn share(
        &mut self,
        place: u32,
        data: Option<&str>,
        keeper: Option<&Keeper>,
        broker: BrokerId,
    ) -> Option<&str> {
        if let (Some(data), false) = (data, self.shared.contains_key(&place)) {
            if let Some(keeper) = keeper {
                // Without it a successor's workers begin with data of their own.
                let _ = memory::sealed("shiftboss-shared", data.as_bytes())
                    .and_then(|file| keeper.deposit(Key::Shared(broker, place), &[file.as_fd()], 0));
            }
            self.shared.insert(place, data.to_owned());
        }
        self.shared.get(&place).map(String::as_str)
    }

    /// Goes on with what another process has kept.
    pub(crate) fn adopt_shared(&mut self, place: u32, file: BorrowedFd<'_>) -> io::Result<()> {
        let data = String::from_utf8_lossy(&memory::read(file)?).into_owned();
        self.shared.insert(place, data);
        Ok(())
    }
}

/// What Node would have had from the kernel.
fn errno_of(error: &BindError) -> Errno {
    match error {
        BindError::InUse { .. } | BindError::NotASocket { .. } => Errno::ADDRINUSE,
        BindError::NotPermitted { .. } => Errno::ACCESS,
        BindError::NotAvailable { .. } => Errno::ADDRNOTAVAIL,
        BindError::Other { source, .. } => Errno::from_io_error(source).unwrap_or(Errno::INVAL),
    }
}

/// Places of declared listeners are below.
pub(crate) const FIRST_ASKED: u32 = 1 << 16;
/// Of one broker: whoever asks for more is told that there are too many open files.
const MOST_ASKED: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(json: &str) -> Result<Wish, Errno> {
        Wish::of(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_query_is_read_as_node_means_it() {
        for (json, address) in [
            (r#"{"address":null,"port":3000,"addressType":4}"#, "tcp://:3000"),
            (r#"{"address":"::","port":3000,"addressType":6,"flags":0}"#, "tcp://:3000"),
            (r#"{"address":"::","port":3000,"addressType":6,"flags":1}"#, "tcp://[::]:3000"),
            (r#"{"address":"0.0.0.0","port":53,"addressType":"udp4","fd":-1,"flags":0}"#, "udp://0.0.0.0:53"),
            (r#"{"address":"/run/x.sock","port":-1,"addressType":-1}"#, "unix:///run/x.sock"),
        ] {
            assert_eq!(wish(json).unwrap().address.to_string(), address, "{json}");
        }
        for json in [
            r#"{"address":null,"port":null,"addressType":null,"fd":5}"#,
            r#"{"address":null,"port":-1,"addressType":-1}"#,
            r#"{"address":"example","port":1,"addressType":4}"#,
            r#"{"address":null,"port":70000,"addressType":4}"#,
            r#"{"address":"x.sock","port":-1,"addressType":-1}"#,
        ] {
            assert_eq!(wish(json), Err(Errno::INVAL), "{json}");
        }
    }

    #[test]
    fn a_declared_listener_is_meant_by_its_port_where_either_side_takes_every_address() {
        let met = |json: &str, declared: &str| {
            let declared: Address = declared.parse().unwrap();
            wish(json).unwrap().is_met_by(&declared, &declared, 0)
        };
        let every = r#"{"address":null,"port":3000,"addressType":4}"#;
        let one = r#"{"address":"127.0.0.1","port":3000,"addressType":4}"#;
        assert!(met(every, "tcp://:3000") && met(every, "tcp://127.0.0.1:3000") && met(one, "tcp://:3000"));
        assert!(met(one, "tcp://127.0.0.1:3000") && !met(one, "tcp://127.0.0.2:3000"));
        assert!(!met(every, "tcp://:3001") && !met(every, "udp://:3000"));
    }
}
