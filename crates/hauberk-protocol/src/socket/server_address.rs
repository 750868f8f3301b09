//! A server as a person names it: `HOST[:PORT]`.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The longest name in the DNS, and room for an interface.
const LONGEST_HOST: usize = 255;

/// The place of a server: a name or an address, and perhaps a port.
///
/// `farm.example`, `farm.example:5555`, `192.0.2.1:5555`, `2001:db8::1`, `[2001:db8::1]:5555` and `[fe80::1%eth0]:5555` are all read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerAddress {
    host: String,
    port: Option<u16>,
}

/// Why a text is no place of a server, or the place cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// The text is not of the form.
    #[error("{text:?} is not HOST[:PORT]")]
    Malformed {
        /// The text.
        text: String,
    },
    /// The name cannot be looked up.
    #[error("cannot find the address of {host}")]
    Lookup {
        /// The name.
        host: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The name exists and has no address.
    #[error("{host} has no address")]
    NoAddress {
        /// The name.
        host: String,
    },
}

impl ServerAddress {
    /// Gives the name or address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Gives the port, if the person named one.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Looks the addresses up, link-local ones last and otherwise in the system's order.
    ///
    /// # Errors
    ///
    /// Fails when the name cannot be looked up or has no address.
    pub async fn resolve(&self, default_port: u16) -> Result<Vec<SocketAddr>, AddressError> {
        let port = self.port.unwrap_or(default_port);
        let found = tokio::net::lookup_host((self.host.as_str(), port))
            .await
            .map_err(|source| AddressError::Lookup { host: self.host.clone(), source })?;
        let mut addresses = Vec::new();
        for address in found {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            return Err(AddressError::NoAddress { host: self.host.clone() });
        }
        addresses.sort_by_key(|address| matches!(address.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local()));
        Ok(addresses)
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) if self.host.contains(':') => write!(formatter, "[{}]:{port}", self.host),
            Some(port) => write!(formatter, "{}:{port}", self.host),
            None => formatter.write_str(&self.host),
        }
    }
}

impl FromStr for ServerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        parse(text).ok_or_else(|| AddressError::Malformed { text: text.chars().take(LONGEST_HOST).collect() })
    }
}

fn parse(text: &str) -> Option<ServerAddress> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        if !is_ipv6(host) {
            return None;
        }
        match rest {
            "" => (host, None),
            _ => (host, Some(rest.strip_prefix(':')?)),
        }
    } else if is_ipv6(text) {
        (text, None)
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let port = match port {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok().filter(|port| *port != 0)?)
        }
        Some(_) => return None,
        None => None,
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let sound = is_ipv6(host) || (!host.is_empty() && !host.starts_with('-') && host.bytes().all(is_name));
    (sound && host.len() <= LONGEST_HOST).then(|| ServerAddress { host: host.to_owned(), port })
}

fn is_ipv6(text: &str) -> bool {
    let (address, interface) = text.split_once('%').unwrap_or((text, "lo"));
    let is_interface = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'@');
    address.parse::<Ipv6Addr>().is_ok() && !interface.is_empty() && interface.bytes().all(is_interface)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_people_write_is_read() {
        let check = |text: &str, host: &str, port: Option<u16>| {
            let address: ServerAddress = text.parse().unwrap();
            assert_eq!((address.host(), address.port()), (host, port), "{text}");
        };
        check("farm.example", "farm.example", None);
        check("farm.example:5555", "farm.example", Some(5555));
        check("192.0.2.1:1", "192.0.2.1", Some(1));
        check("2001:db8::1", "2001:db8::1", None);
        check("[2001:db8::1]", "2001:db8::1", None);
        check("[2001:db8::1]:5555", "2001:db8::1", Some(5555));
        check("[fe80::1%eth0]:5555", "fe80::1%eth0", Some(5555));
        check("fe80::1%2", "fe80::1%2", None);
    }

    #[test]
    fn other_texts_are_refused() {
        let long = "a".repeat(300);
        for text in [
            "", ":1", "a:", "a:0", "a:65536", "a:+1", "a b", "a\0b", "[::1", "[a]:1", "[::1]5", "-a",
            "fe80::1%", "a:1:2", &long,
        ] {
            assert!(text.parse::<ServerAddress>().is_err(), "{text:?}");
        }
    }

    #[tokio::test]
    async fn addresses_and_names_are_resolved() {
        let resolve = async |text: &str| text.parse::<ServerAddress>().unwrap().resolve(7).await.unwrap();
        assert_eq!(resolve("127.0.0.1").await, ["127.0.0.1:7".parse().unwrap()]);
        assert_eq!(resolve("[::1]:8").await, ["[::1]:8".parse().unwrap()]);
        assert!(resolve("localhost").await.iter().all(|address| address.ip().is_loopback()));
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same_or_shorter(text in "[\\[\\]a-f0-9:.%-]{0,40}") {
            if let Ok(address) = text.parse::<ServerAddress>() {
                prop_assert_eq!(address.to_string().parse::<ServerAddress>().unwrap(), address);
            }
        }
    }
}
