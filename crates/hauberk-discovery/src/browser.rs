//! Finding servers.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use mdns_sd::{Receiver, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tracing::{debug, warn};

use crate::{Advertisement, DiscoveryError, Interfaces, SERVICE_TYPE};

/// How often the network is asked again while a worker is without a server. mDNS itself asks ever more seldom, up to once an
/// hour, and a server that was started behind a broken link would be found as late.
pub const SEARCH_INTERVAL: Duration = Duration::from_secs(5);

/// Most servers that are remembered; anybody on the network can announce any number.
const MOST_SERVERS: usize = 256;
/// Most addresses of a server.
const MOST_ADDRESSES: usize = 16;

/// A server, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What it says of itself.
    pub advertisement: Advertisement,
    /// Its addresses with its backend port, in the order to try: IPv4, then IPv6, those of one link last.
    pub addresses: Vec<SocketAddr>,
}

/// News about servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discovery {
    /// A server appeared, or something about it changed; often its addresses come one after the other.
    Found(Found),
    /// A server said goodbye or has not been heard of for two minutes. It tells nothing about a connection that stands.
    Removed {
        /// The name under which it was found.
        instance: String,
    },
}

/// Searches for servers for as long as it lives.
pub struct Browser {
    daemon: ServiceDaemon,
    events: Receiver<ServiceEvent>,
    again: Interval,
    searching: bool,
    /// By their full names.
    known: HashMap<String, Found>,
}

impl Browser {
    /// Begins to search on the given interfaces, asking anew every [`SEARCH_INTERVAL`] until told otherwise.
    ///
    /// # Errors
    ///
    /// Fails when no thread that speaks mDNS can be started.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub fn start(interfaces: &Interfaces) -> Result<Self, DiscoveryError> {
        Self::start_with_interval(interfaces, SEARCH_INTERVAL)
    }

    /// Begins to search as [`Browser::start`], asking anew every `interval`.
    ///
    /// # Errors
    ///
    /// As [`Browser::start`].
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime and with an interval of zero.
    pub fn start_with_interval(interfaces: &Interfaces, interval: Duration) -> Result<Self, DiscoveryError> {
        let daemon = interfaces.start()?;
        let events = browse(&daemon)?;
        let mut again = interval_at(Instant::now() + interval, interval);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self { daemon, events, again, searching: true, known: HashMap::new() })
    }

    /// Says whether to keep asking: yes while a server is missing, no while all is well. Announcements are heard in both cases.
    pub fn set_searching(&mut self, searching: bool) {
        if searching && !self.searching {
            self.again.reset_immediately();
        }
        self.searching = searching;
    }

    /// Gives the servers that are known now, in no order.
    pub fn known(&self) -> impl Iterator<Item = &Found> {
        self.known.values()
    }

    /// Waits for news. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Fails when the thread that speaks mDNS has ended.
    pub async fn next(&mut self) -> Result<Discovery, DiscoveryError> {
        loop {
            tokio::select! {
                biased;
                event = self.events.recv_async() => {
                    let event = event.map_err(|_| DiscoveryError::Ended)?;
                    if let Some(news) = self.digest(event) {
                        return Ok(news);
                    }
                }
                _ = self.again.tick(), if self.searching => self.events = browse(&self.daemon)?,
            }
        }
    }

    fn digest(&mut self, event: ServiceEvent) -> Option<Discovery> {
        match event {
            ServiceEvent::ServiceResolved(service) => {
                let found = match read(&service) {
                    Ok(found) => found,
                    Err(error) => {
                        debug!(
                            error = &error as &dyn std::error::Error,
                            "ignored {}",
                            service.get_fullname()
                        );
                        return None;
                    }
                };
                let full_name = service.get_fullname();
                if self.known.get(full_name) == Some(&found) {
                    return None;
                }
                if self.known.len() >= MOST_SERVERS && !self.known.contains_key(full_name) {
                    warn!("ignored {full_name}: there are {MOST_SERVERS} servers already");
                    return None;
                }
                self.known.insert(full_name.to_owned(), found.clone());
                Some(Discovery::Found(found))
            }
            ServiceEvent::ServiceRemoved(_, full_name) => {
                let found = self.known.remove(&full_name)?;
                Some(Discovery::Removed { instance: found.advertisement.instance })
            }
            _ => None,
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Err(error) = self.daemon.shutdown() {
            debug!(error = &error as &dyn std::error::Error, "the mDNS thread has ended before");
        }
    }
}

/// Asks the network. Asking again replaces the channel and keeps what the thread has heard before.
fn browse(daemon: &ServiceDaemon) -> Result<Receiver<ServiceEvent>, DiscoveryError> {
    daemon.browse(SERVICE_TYPE).map_err(DiscoveryError::mdns("search for servers"))
}

fn read(service: &ResolvedService) -> Result<Found, crate::MalformedAdvertisement> {
    let instance = instance_name(service.get_fullname());
    let advertisement = Advertisement::from_properties(&instance, service.get_port(), |key| {
        service.get_property(key)?.val().and_then(|value| std::str::from_utf8(value).ok())
    })?;
    Ok(Found { advertisement, addresses: addresses(service.get_addresses(), service.get_port()) })
}

/// Takes the name of a server out of its full name, where dots and backslashes are escaped.
fn instance_name(full_name: &str) -> String {
    let escaped =
        full_name.strip_suffix(SERVICE_TYPE).and_then(|name| name.strip_suffix('.')).unwrap_or(full_name);
    let mut name = String::with_capacity(escaped.len());
    let mut characters = escaped.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => name.extend(characters.next()),
            other => name.push(other),
        }
    }
    name
}

fn addresses<'a>(announced: impl IntoIterator<Item = &'a ScopedIp>, port: u16) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> =
        announced.into_iter().filter_map(|address| socket_address(address, port)).collect();
    addresses.sort_by_key(|address| (rank(address.ip()), *address));
    addresses.dedup();
    addresses.truncate(MOST_ADDRESSES);
    addresses
}

fn socket_address(address: &ScopedIp, port: u16) -> Option<SocketAddr> {
    match address {
        ScopedIp::V4(address) => Some(SocketAddr::new((*address.addr()).into(), port)),
        ScopedIp::V6(address) if address.addr().is_unicast_link_local() => {
            // Without the link it is on, such an address leads nowhere.
            let link = address.scope_id().index;
            (link != 0).then(|| SocketAddrV6::new(*address.addr(), port, 0, link).into())
        }
        ScopedIp::V6(address) => Some(SocketAddr::new((*address.addr()).into(), port)),
        _ => None,
    }
}

fn rank(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(address) if !address.is_link_local() => 0,
        IpAddr::V6(address) if !address.is_unicast_link_local() => 1,
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 3,
    }
}

#[cfg(test)]
mod tests {
    use mdns_sd::{InterfaceId, ScopedIpV4};

    use super::*;

    #[test]
    fn addresses_are_tried_in_a_sensible_order() {
        let address = |text: &str| ScopedIp::from(text.parse::<IpAddr>().unwrap());
        let twice = ScopedIp::V4(ScopedIpV4::new([192, 0, 2, 1].into(), InterfaceId::default()));
        let announced = [
            address("fe80::1"),
            address("169.254.0.1"),
            address("2001:db8::1"),
            address("192.0.2.1"),
            twice,
            address("10.0.0.1"),
        ];
        let expected = ["10.0.0.1:5", "192.0.2.1:5", "[2001:db8::1]:5", "169.254.0.1:5"];
        let expected: Vec<SocketAddr> = expected.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(addresses(&announced, 5), expected);
        let many: Vec<ScopedIp> = (0..100_u8).map(|byte| IpAddr::from([10, 0, 0, byte]).into()).collect();
        assert_eq!(addresses(&many, 5).len(), MOST_ADDRESSES);
    }

    #[test]
    fn names_with_dots_are_read() {
        assert_eq!(instance_name(r"north._hauberk._tcp.local."), "north");
        assert_eq!(instance_name(r"farm\.example \\ 1._hauberk._tcp.local."), r"farm.example \ 1");
        assert_eq!(instance_name(r"odd\"), "odd");
    }
}
