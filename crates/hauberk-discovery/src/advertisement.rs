//! What a server says of itself, and how it stands in a TXT record.

use hauberk_protocol::keys::CurvePublicKey;

/// Longest instance or farm name: a label of the DNS.
const LONGEST_NAME: usize = 63;
/// Longest version.
const LONGEST_VERSION: usize = 64;
/// Most store directories; a farm has two kinds.
const MOST_DIRECTORIES: usize = 8;
/// A string of a TXT record, key and `=` included (RFC 6763, 6.1).
const LONGEST_PROPERTY: usize = 255;

/// What a server says of itself. To a worker all of it is a hint: anybody on the network can say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertisement {
    /// Name of the server among those of the network, for people. mDNS changes it when it is taken.
    pub instance: String,
    /// Name of the farm that the server belongs to.
    pub farm: String,
    /// Version of the server's program.
    pub version: String,
    /// Port where it waits for workers.
    pub backend_port: u16,
    /// Port where it receives logs.
    pub log_port: Option<u16>,
    /// Port of its publish server.
    pub publish_port: Option<u16>,
    /// Store directories it has builds for; absolute paths.
    pub store_directories: Vec<String>,
    /// The key it must prove to own; none when the farm does not encrypt.
    pub server_key: Option<CurvePublicKey>,
}

/// Why an advertisement cannot be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MalformedAdvertisement {
    /// A property that every server has is not there.
    #[error("the TXT record has no {key}")]
    Missing {
        /// The property's key.
        key: &'static str,
    },
    /// A property's value is not of its form.
    #[error("{key} of the TXT record is malformed")]
    Malformed {
        /// The property's key.
        key: &'static str,
    },
    /// A value is empty, too long, or has control characters.
    #[error("{key} is empty, longer than {limit} bytes or has control characters")]
    Text {
        /// The property's key.
        key: &'static str,
        /// The longest value, in bytes.
        limit: usize,
    },
    /// Port 0 is none.
    #[error("the server has no port")]
    NoPort,
}

// Keys of the TXT record, as the README documents them.
const FARM: &str = "farm";
const VERSION: &str = "version";
const LOG_PORT: &str = "log-port";
const PUBLISH_PORT: &str = "publish-port";
const STORE: &str = "store";
const KEY: &str = "key";

impl Advertisement {
    /// Writes the properties of the TXT record.
    ///
    /// # Errors
    ///
    /// Fails when a value does not fit a record or could not be read again.
    pub fn to_properties(&self) -> Result<Vec<(&'static str, String)>, MalformedAdvertisement> {
        check_text("instance", &self.instance, LONGEST_NAME)?;
        if self.backend_port == 0 {
            return Err(MalformedAdvertisement::NoPort);
        }
        let mut properties = vec![(FARM, self.farm.clone()), (VERSION, self.version.clone())];
        properties.extend(self.log_port.map(|port| (LOG_PORT, port.to_string())));
        properties.extend(self.publish_port.map(|port| (PUBLISH_PORT, port.to_string())));
        if !self.store_directories.is_empty() {
            properties.push((STORE, self.store_directories.join(",")));
        }
        properties.extend(self.server_key.map(|key| (KEY, key.to_string())));
        // What is read must be what was written: a directory with a comma, for one, would not be.
        let find =
            |key: &str| properties.iter().find(|(known, _)| *known == key).map(|(_, value)| value.as_str());
        let again = Self::from_properties(&self.instance, self.backend_port, find)?;
        if again != *self {
            return Err(MalformedAdvertisement::Malformed { key: STORE });
        }
        Ok(properties)
    }

    /// Reads the properties of a TXT record by their keys. Properties it does not know are ignored.
    ///
    /// # Errors
    ///
    /// Fails when the farm or the version is not there, or a value is malformed or longer than any server's.
    pub fn from_properties<'a>(
        instance: &str,
        backend_port: u16,
        find: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<Self, MalformedAdvertisement> {
        if backend_port == 0 {
            return Err(MalformedAdvertisement::NoPort);
        }
        let required = |key: &'static str, limit| {
            let value = find(key).ok_or(MalformedAdvertisement::Missing { key })?;
            check_text(key, value, limit).map(|()| value.to_owned())
        };
        let port = |key: &'static str| find(key).map(|value| parse_port(key, value)).transpose();
        Ok(Self {
            instance: instance.to_owned(),
            farm: required(FARM, LONGEST_NAME)?,
            version: required(VERSION, LONGEST_VERSION)?,
            backend_port,
            log_port: port(LOG_PORT)?,
            publish_port: port(PUBLISH_PORT)?,
            store_directories: find(STORE).map(parse_directories).transpose()?.unwrap_or_default(),
            server_key: find(KEY)
                .map(|value| value.parse().map_err(|_| MalformedAdvertisement::Malformed { key: KEY }))
                .transpose()?,
        })
    }
}

fn check_text(key: &'static str, value: &str, limit: usize) -> Result<(), MalformedAdvertisement> {
    if value.is_empty() || value.len() > limit || value.chars().any(char::is_control) {
        return Err(MalformedAdvertisement::Text { key, limit });
    }
    Ok(())
}

fn parse_port(key: &'static str, value: &str) -> Result<u16, MalformedAdvertisement> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    let port = value.parse().ok().filter(|port| digits && *port != 0);
    port.ok_or(MalformedAdvertisement::Malformed { key })
}

fn parse_directories(value: &str) -> Result<Vec<String>, MalformedAdvertisement> {
    check_text(STORE, value, LONGEST_PROPERTY - STORE.len() - 1)?;
    let directories: Vec<String> = value.split(',').map(str::to_owned).collect();
    if directories.len() > MOST_DIRECTORIES || !directories.iter().all(|path| path.starts_with('/')) {
        return Err(MalformedAdvertisement::Malformed { key: STORE });
    }
    Ok(directories)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use hauberk_protocol::keys::CurveKeyPair;
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Advertisement {
        Advertisement {
            instance: "north".into(),
            farm: "example".into(),
            version: "0.1.0".into(),
            backend_port: 5555,
            log_port: Some(5556),
            publish_port: Some(5557),
            store_directories: vec!["/gnu/store".into(), "/nix/store".into()],
            server_key: Some(*CurveKeyPair::generate().public()),
        }
    }

    fn read(properties: &[(&str, &str)]) -> Result<Advertisement, MalformedAdvertisement> {
        let properties: HashMap<_, _> = properties.iter().copied().collect();
        Advertisement::from_properties("north", 5555, |key| properties.get(key).copied())
    }

    #[test]
    fn what_is_written_is_documented_and_read_again() {
        let sample = sample();
        let properties = sample.to_properties().unwrap();
        let key = sample.server_key.unwrap().to_string();
        let expected = [
            ("farm", "example"),
            ("version", "0.1.0"),
            ("log-port", "5556"),
            ("publish-port", "5557"),
            ("store", "/gnu/store,/nix/store"),
            ("key", &key),
        ];
        assert_eq!(
            properties.iter().map(|(key, value)| (*key, value.as_str())).collect::<Vec<_>>(),
            expected
        );
        assert_eq!(read(&expected), Ok(sample));
    }

    #[test]
    fn a_server_need_not_say_much() {
        let least = read(&[("farm", "f"), ("version", "1"), ("unknown", "x")]).unwrap();
        assert_eq!((least.log_port, least.publish_port, least.server_key), (None, None, None));
        assert!(least.store_directories.is_empty());
        assert_eq!(read(&[("farm", "f")]), Err(MalformedAdvertisement::Missing { key: "version" }));
    }

    #[test]
    fn malformed_properties_are_refused() {
        let long = "x".repeat(64);
        let many = ["/s"; 9].join(",");
        for (key, value) in [
            ("farm", ""),
            ("farm", "a\nb"),
            ("farm", &long),
            ("log-port", "0"),
            ("log-port", "+1"),
            ("publish-port", "65536"),
            ("store", "nix/store"),
            ("store", "/nix/store,"),
            ("store", &many),
            ("key", "short"),
        ] {
            let mut properties = vec![("farm", "f"), ("version", "1")];
            properties.retain(|(known, _)| *known != key);
            properties.push((key, value));
            assert!(read(&properties).is_err(), "{key}={value}");
        }
        assert_eq!(
            Advertisement::from_properties("x", 0, |_| Some("x")),
            Err(MalformedAdvertisement::NoPort)
        );
    }

    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let check = |change: fn(&mut Advertisement)| {
            let mut changed = sample();
            change(&mut changed);
            assert!(changed.to_properties().is_err(), "{changed:?}");
        };
        check(|changed| changed.instance = "x".repeat(64));
        check(|changed| changed.farm.clear());
        check(|changed| changed.backend_port = 0);
        check(|changed| changed.log_port = Some(0));
        check(|changed| changed.store_directories = vec!["/a,/b".into()]);
        check(|changed| changed.store_directories = vec![format!("/{}", "x".repeat(255))]);
    }

    proptest! {
        #[test]
        fn junk_is_an_error_or_an_advertisement(
            values in prop::collection::vec(prop::option::of("[ -~]{0,20}|\\PC{0,70}|[0-9]{1,6}|/[a-z/,]{0,20}"), 6),
            port: u16,
        ) {
            let keys = [FARM, VERSION, LOG_PORT, PUBLISH_PORT, STORE, KEY];
            let properties: HashMap<_, _> =
                keys.into_iter().zip(&values).filter_map(|(key, value)| Some((key, value.as_deref()?))).collect();
            if let Ok(read) = Advertisement::from_properties("x", port, |key| properties.get(key).copied()) {
                let written = read.to_properties().unwrap();
                let again = Advertisement::from_properties("x", port, |key| {
                    written.iter().find(|(known, _)| *known == key).map(|(_, value)| value.as_str())
                });
                prop_assert_eq!(again, Ok(read));
            }
        }
    }
}
