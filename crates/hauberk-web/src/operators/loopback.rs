//! Who is behind a connection of this machine.
//!
//! That a connection comes over the loopback interface says little: a proxy in front of us connects so for the whole world. Therefore
//! the request must not show signs of a proxy, must name this machine as its host (a page elsewhere whose name was turned to 127.0.0.1
//! names its own), and the other end must belong to a person: the kernel tells which user opened it, and proxies run as system users.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, header};
use nix::unistd::{Uid, User, getuid};

/// Headers that proxies add.
const FORWARDED: [&str; 11] = [
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
];
/// Users with these numbers are people (login.defs); those below belong to services.
const PEOPLE: std::ops::RangeInclusive<u32> = 1000..=60_000;

/// The ends of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    /// The other end.
    pub(crate) remote: SocketAddr,
    /// Our end.
    pub(crate) local: SocketAddr,
}

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LocalUser {
    pub(super) uid: u32,
    pub(super) name: String,
}

impl Peer {
    /// Finds the person of this machine who sent a request, if one did and no proxy.
    pub(super) fn user(&self, headers: &HeaderMap) -> Option<LocalUser> {
        let loopback = |address: SocketAddr| address.ip().to_canonical().is_loopback();
        if !loopback(self.remote) || !loopback(self.local) || !is_direct(headers) {
            return None;
        }
        let uid = owner(self.remote, self.local)?;
        let is_person = uid == 0 || uid == getuid().as_raw() || PEOPLE.contains(&uid);
        is_person.then(|| LocalUser { uid, name: name(uid) })
    }
}

/// Tells whether a request names this machine and shows no sign of a proxy.
fn is_direct(headers: &HeaderMap) -> bool {
    if FORWARDED.iter().any(|name| headers.contains_key(*name)) {
        return false;
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn name(uid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| format!("uid {uid}"), |user| user.name)
}

/// Asks the kernel which user has the other end of a connection open.
fn owner(remote: SocketAddr, local: SocketAddr) -> Option<u32> {
    ["/proc/self/net/tcp", "/proc/self/net/tcp6"].into_iter().find_map(|table| {
        let lines = BufReader::new(File::open(table).ok()?).lines();
        lines.skip(1).map_while(Result::ok).find_map(|line| {
            let entry = Entry::parse(&line)?;
            (same(entry.local, remote) && same(entry.remote, local)).then_some(entry.uid)
        })
    })
}

fn same(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port() && one.ip().to_canonical() == other.ip().to_canonical()
}

/// A line of the kernel's table of connections.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    local: SocketAddr,
    remote: SocketAddr,
    uid: u32,
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        // sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid ...
        let fields: Vec<&str> = line.split_whitespace().take(8).collect();
        let [_, local, remote, "01", _, _, _, uid] = fields.as_slice() else { return None };
        Some(Self { local: address(local)?, remote: address(remote)?, uid: uid.parse().ok()? })
    }
}

/// Reads an address: words of 32 bits in the machine's order, and a port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for place in (0..ip.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(ip.get(place..place + 8)?, 16).ok()?.to_ne_bytes());
    }
    let ip: IpAddr = match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok()?.into(),
        16 => <[u8; 16]>::try_from(bytes).ok()?.into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use axum::http::HeaderName;

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_kernel_tells_whose_a_connection_is() {
        for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let port = listener.local_addr().unwrap().port();
            let target = if address.starts_with("[::1]") { "::1" } else { "127.0.0.1" };
            let client = TcpStream::connect((target, port)).unwrap();
            let (served, remote) = listener.accept().unwrap();
            let peer = Peer { remote, local: served.local_addr().unwrap() };
            let host = headers(&[("host", "localhost:8080")]);
            assert_eq!(peer.user(&host).map(|user| user.uid), Some(getuid().as_raw()), "{address}");
            assert_eq!(peer.user(&headers(&[("host", "localhost"), ("x-forwarded-for", "192.0.2.1")])), None);
            assert_eq!(peer.user(&headers(&[("host", "farm.example.org")])), None);
            // Nobody has an end that was closed.
            drop(client);
            let gone = Peer { remote: SocketAddr::new(remote.ip(), 1), ..peer };
            assert_eq!(gone.user(&host), None);
        }
    }

    #[test]
    fn requests_for_others_are_not_direct() {
        for host in ["localhost", "LOCALHOST:1", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080", "[::1]"] {
            assert!(is_direct(&headers(&[("host", host)])), "{host}");
        }
        for host in
            ["", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "[::2]"]
        {
            assert!(!is_direct(&headers(&[("host", host)])), "{host}");
        }
        for name in FORWARDED {
            assert!(!is_direct(&headers(&[("host", "localhost"), (name, "x")])), "{name}");
        }
        assert!(!is_direct(&headers(&[])));
        assert!(!is_direct(&headers(&[("host", "localhost"), ("host", "localhost")])));
    }

    #[test]
    fn lines_of_the_kernel_are_read() {
        if cfg!(target_endian = "big") {
            return;
        }
        let line = "   1: 0100007F:1F90 0100007F:B0C4 01 00000000:00000000 00:00000000 00000000  1000        0 12345 1";
        let expected = Entry {
            local: "127.0.0.1:8080".parse().unwrap(),
            remote: "127.0.0.1:45252".parse().unwrap(),
            uid: 1000,
        };
        assert_eq!(Entry::parse(line), Some(expected));
        let listening = line.replacen(" 01 ", " 0A ", 1);
        assert_eq!(Entry::parse(&listening), None);
        let six = "00000000000000000000000001000000:0050";
        assert_eq!(address(six), Some("[::1]:80".parse().unwrap()));
        for junk in ["", "x", "1:2", "0100007F", "0100007F:xyz", "0100007Fü00:1"] {
            assert_eq!(address(junk), None);
        }
    }
}
