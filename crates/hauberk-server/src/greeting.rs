//! What a worker says of itself in its Hello, checked before anything is asked of the database.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use hauberk_database::workers::Description;
use hauberk_order::Capabilities;
use hauberk_protocol::keys::CurvePublicKey;
use hauberk_protocol::proto::{Hello, Refused, RefusedReason, Welcome, hello};
use hauberk_protocol::socket::RoutingId;
use hauberk_store::StoreDirectory;
use hauberk_store::signature::PublicKey;

use crate::refusal::{check_version, refused};

/// Words in a Hello's lists at most.
const WORDS: usize = 256;
/// Bytes in a name or word at most.
const WORD: usize = 256;
/// Bytes in a signing key at most.
const LONGEST_KEY: usize = 4096;
/// Bytes in a URL at most.
const LONGEST_URL: usize = 1024;

/// A Hello, and by what connection it came.
#[derive(Debug, Clone)]
pub(crate) struct Join {
    /// The connection.
    pub(crate) routing: RoutingId,
    /// The key that the peer has proved to own.
    pub(crate) user: Option<CurvePublicKey>,
    /// Where it is.
    pub(crate) peer_address: Option<IpAddr>,
    /// What it says.
    pub(crate) hello: Box<Hello>,
}

/// A Hello that can be taken, if the worker is enrolled.
#[derive(Debug)]
pub(crate) struct Greeting {
    /// The Hello.
    pub(crate) join: Join,
    /// Its peer's key, as text.
    pub(crate) key: Option<String>,
    /// What the worker can build.
    pub(crate) capabilities: Capabilities,
    /// The key that it signs with.
    pub(crate) signing_key: PublicKey,
    /// What is recorded of it.
    pub(crate) description: Description,
}

impl Greeting {
    /// Checks a Hello to a server that says `welcomes` to workers of its store directories.
    pub(crate) fn check(
        join: Join,
        welcomes: &BTreeMap<StoreDirectory, Welcome>,
    ) -> Result<Self, (Join, Refused)> {
        match Self::read(&join, welcomes) {
            Ok((capabilities, signing_key, description)) => {
                let key = join.user.map(|user| user.to_string());
                Ok(Self { join, key, capabilities, signing_key, description })
            }
            Err(refused) => Err((join, refused)),
        }
    }

    fn read(
        join: &Join,
        welcomes: &BTreeMap<StoreDirectory, Welcome>,
    ) -> Result<(Capabilities, PublicKey, Description), Refused> {
        let Join { hello, peer_address, .. } = join;
        check_version(hello.protocol)?;
        let capabilities = capabilities(hello)?;
        let welcome = welcome_for(welcomes, &capabilities.store_directory)?;
        let signing_key = signing_key(hello, welcome)?;
        let description = Description {
            machine: hello.machine.clone(),
            address: peer_address.map(|address| address.to_string()).unwrap_or_default(),
            version: hello.version.clone(),
            daemon: hello.resources.as_ref().map(|machine| machine.daemon.clone()).unwrap_or_default(),
            store_directory: hello.store_directory.clone(),
            systems: hello.systems.clone(),
            features: hello.features.clone(),
            mandatory_features: hello.mandatory_features.clone(),
            slots: i32::try_from(hello.slots).unwrap_or(i32::MAX),
            publish_url: publish_url(hello, *peer_address)?,
        };
        Ok((capabilities, signing_key, description))
    }
}

/// What to say to a worker of this store directory.
pub(crate) fn welcome_for<'a>(
    welcomes: &'a BTreeMap<StoreDirectory, Welcome>,
    directory: &StoreDirectory,
) -> Result<&'a Welcome, Refused> {
    welcomes.get(directory).ok_or_else(|| {
        let held: Vec<_> = welcomes.keys().map(StoreDirectory::to_string).collect();
        refused(
            RefusedReason::StoreDirectory,
            format!(
                "this server holds {}, and the worker builds in {directory}; give the server --store {directory} \
                 and a signing key for it",
                held.join(" and ")
            ),
        )
    })
}

fn capabilities(hello: &Hello) -> Result<Capabilities, Refused> {
    let bad = |what: String| refused(RefusedReason::BadHello, what);
    if !is_name(&hello.name) {
        return Err(bad(
            "a worker's name has 1 to 64 letters, digits, `.`, `_` and `-`, and begins with a letter or digit".to_owned(),
        ));
    }
    let store_directory: StoreDirectory = hello
        .store_directory
        .parse()
        .map_err(|error| refused(RefusedReason::StoreDirectory, format!("{error}")))?;
    if hello.slots == 0 {
        return Err(bad("a worker has one slot at least".to_owned()));
    }
    let words = |what: &str, list: &[String]| -> Result<BTreeSet<String>, Refused> {
        if list.len() > WORDS || list.iter().any(|word| word.is_empty() || word.len() > WORD) {
            return Err(bad(format!("there are too many {what}, or one is empty or too long")));
        }
        Ok(list.iter().cloned().collect())
    };
    let daemon = hello.resources.as_ref().map_or("", |machine| &machine.daemon);
    if [&hello.machine, &hello.version, daemon].iter().any(|text| text.len() > WORD)
        || hello.signing_key.len() > LONGEST_KEY
    {
        return Err(bad("machine, version, daemon or signing key is too long".to_owned()));
    }
    // PostgreSQL's texts have none.
    let texts = [&hello.machine, &hello.version, daemon, &hello.signing_key];
    let lists = [&hello.systems, &hello.features, &hello.mandatory_features];
    if texts
        .into_iter()
        .chain(lists.into_iter().flatten().map(String::as_str))
        .any(|text| text.contains('\0'))
    {
        return Err(bad("there is a zero byte in a text".to_owned()));
    }
    Ok(Capabilities {
        store_directory,
        systems: words("systems", &hello.systems)?,
        features: words("features", &hello.features)?,
        mandatory_features: words("mandatory features", &hello.mandatory_features)?,
    })
}

/// Reads the key a worker signs with, which must be of the kind that its store's narinfos are signed by.
fn signing_key(hello: &Hello, welcome: &Welcome) -> Result<PublicKey, Refused> {
    let is_guix = |key: &PublicKey| matches!(key, PublicKey::Guix(_));
    let key: PublicKey = hello.signing_key.parse().map_err(|error| {
        refused(RefusedReason::SigningKey, format!("its signing key cannot be read: {error}"))
    })?;
    let ours = welcome.signing_keys.iter().find_map(|key| key.key.parse().ok());
    match ours {
        Some(ours) if is_guix(&ours) != is_guix(&key) => Err(refused(
            RefusedReason::SigningKey,
            format!(
                "results of {} are signed with keys of {} here; make one with `hauberk key signing`",
                hello.store_directory,
                if is_guix(&ours) { "Guix" } else { "Nix" }
            ),
        )),
        _ => Ok(key),
    }
}

/// Whether a text can be a worker's name.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// Where the worker's results are: the URL it gave, or its port at the address it is seen at.
fn publish_url(hello: &Hello, peer_address: Option<IpAddr>) -> Result<Option<String>, Refused> {
    match &hello.publish {
        None => Ok(None),
        Some(hello::Publish::PublishUrl(url)) => {
            if url.len() <= LONGEST_URL
                && !url.contains('\0')
                && (url.starts_with("http://") || url.starts_with("https://"))
            {
                Ok(Some(url.trim_end_matches('/').to_owned()))
            } else {
                Err(refused(RefusedReason::BadHello, format!("`{url}` is not an http URL")))
            }
        }
        Some(hello::Publish::PublishPort(port)) => match (u16::try_from(*port), peer_address) {
            (Ok(port @ 1..), Some(IpAddr::V4(address))) => Ok(Some(format!("http://{address}:{port}"))),
            (Ok(port @ 1..), Some(IpAddr::V6(address))) => Ok(Some(format!("http://[{address}]:{port}"))),
            (Ok(1..), None) => Ok(None),
            (Ok(0) | Err(_), _) => Err(refused(RefusedReason::BadHello, format!("{port} is not a port"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use hauberk_protocol::PROTOCOL_VERSION;

    use super::*;

    fn hello() -> Hello {
        Hello {
            protocol: PROTOCOL_VERSION,
            name: "w-1.example".to_owned(),
            store_directory: "/nix/store".to_owned(),
            systems: vec!["x86_64-linux".to_owned()],
            slots: 2,
            ..Hello::default()
        }
    }

    #[test]
    fn a_hello_is_checked_before_anything_is_believed() {
        assert!(capabilities(&hello()).is_ok());
        let cases: [fn(&mut Hello); 8] = [
            |hello| hello.name = String::new(),
            |hello| hello.name = "a b".to_owned(),
            |hello| hello.name = "x".repeat(65),
            |hello| hello.slots = 0,
            |hello| hello.store_directory = "store".to_owned(),
            |hello| hello.systems = vec!["s".repeat(300)],
            |hello| hello.machine = "m\0".to_owned(),
            |hello| hello.features = vec!["f\0".to_owned()],
        ];
        for case in cases {
            let mut bad = hello();
            case(&mut bad);
            assert!(capabilities(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_port_is_joined_with_the_address_the_server_sees() {
        let mut hello = hello();
        assert_eq!(publish_url(&hello, None).unwrap(), None);
        hello.publish = Some(hello::Publish::PublishPort(5558));
        let v4 = publish_url(&hello, Some("10.0.0.1".parse().unwrap())).unwrap();
        assert_eq!(v4.as_deref(), Some("http://10.0.0.1:5558"));
        let v6 = publish_url(&hello, Some("fd00::1".parse().unwrap())).unwrap();
        assert_eq!(v6.as_deref(), Some("http://[fd00::1]:5558"));
        hello.publish = Some(hello::Publish::PublishPort(70_000));
        assert!(publish_url(&hello, Some("10.0.0.1".parse().unwrap())).is_err());
        hello.publish = Some(hello::Publish::PublishUrl("file:///etc".to_owned()));
        assert!(publish_url(&hello, None).is_err());
        hello.publish = Some(hello::Publish::PublishUrl("https://w.example/x/".to_owned()));
        assert_eq!(publish_url(&hello, None).unwrap().as_deref(), Some("https://w.example/x"));
    }
}
