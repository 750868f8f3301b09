//! Finds out whether the build daemon accepts what a server signs.

use hauberk_daemon::{BuildDaemon, DaemonError, Dialect, PathInfo};
use hauberk_store::{NarInfo, StoreDirectory};

use crate::builder::{Server, Unaccepted};

/// Adds the server's probe, a path that nobody needs. The daemon checks its signature whether or not it has the path: Nix's that of the
/// narinfo, Guix's that of an export. `daemon` must be newly connected, as a Guix daemon reads its list of keys once a session.
pub(crate) async fn check(
    server: &Server,
    directory: &StoreDirectory,
    daemon: &mut dyn BuildDaemon,
) -> Result<(), Unaccepted> {
    let Some(probe) = &server.trust_probe else {
        tracing::warn!(server.name = %server.name, "server {} gives nothing to try its key with", server.name);
        return Ok(());
    };
    let dialect = daemon.info().dialect;
    let added = match dialect {
        Dialect::Nix => {
            let narinfo = NarInfo::parse(directory, &probe.narinfo)
                .map_err(|source| Unaccepted::Unknown { source: Box::new(source) })?;
            daemon.add_nar(&PathInfo::from(&narinfo), &mut probe.nar.as_ref(), false).await
        }
        Dialect::Guix if probe.export.is_empty() => {
            let message =
                format!("server {} does not sign as Guix does: its results cannot be used here", server.name);
            return Err(Unaccepted::Refused { message });
        }
        Dialect::Guix => daemon.import_paths(&mut probe.export.as_ref()).await.map(|_| ()),
    };
    match added {
        Ok(()) => Ok(()),
        Err(DaemonError::Daemon { message, .. }) => Err(Unaccepted::Refused {
            message: match dialect {
                Dialect::Nix => nix_remedy(server, &message),
                Dialect::Guix => guix_remedy(server, &message),
            },
        }),
        Err(error) => Err(Unaccepted::Unknown { source: Box::new(error) }),
    }
}

/// Says what is wrong and what mends it, in a form that can be pasted.
fn guix_remedy(server: &Server, message: &str) -> String {
    let said = message.lines().next().unwrap_or_default().trim();
    let keys = server.signing_keys.iter().map(|key| key.split_whitespace().collect::<Vec<_>>().join(" "));
    let commands: String = keys.map(|key| format!("\n  echo '{key}' | guix archive --authorize")).collect();
    format!(
        "the build daemon does not accept what server {} signs ({said}): run as root{commands}\n\
         and start the worker again; the same key is in the server's signing-key.pub",
        server.name
    )
}

/// Says what is wrong and what mends it, in a form that can be pasted.
fn nix_remedy(server: &Server, message: &str) -> String {
    let keys = server.signing_keys.join(" ");
    let said = message.lines().next().unwrap_or_default();
    format!(
        "the build daemon does not accept what server {} signs ({said}): run as root\n  \
         echo 'extra-trusted-public-keys = {keys}' >>/etc/nix/nix.conf && systemctl restart nix-daemon\n\
         or add {keys} to the line trusted-public-keys in /etc/nix/nix.conf and restart nix-daemon",
        server.name
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_names_key_and_file() {
        let server = Server {
            name: "north".to_owned(),
            publish_url: String::new(),
            signing_keys: vec!["north-1:abc=".to_owned()],
            trust_probe: None,
        };
        let text = nix_remedy(&server, "cannot add path because it lacks a valid signature\ntrace");
        assert!(text.contains("extra-trusted-public-keys = north-1:abc="), "{text}");
        assert!(text.contains("/etc/nix/nix.conf") && !text.contains("trace"), "{text}");

        let key = "(public-key \n (ecc \n  (curve Ed25519)\n  (q #00#)\n  )\n )\n".to_owned();
        let server = Server { signing_keys: vec![key], ..server };
        let text = guix_remedy(&server, "unauthorized public key: (public-key \n (ecc");
        let command = "echo '(public-key (ecc (curve Ed25519) (q #00#) ) )' | guix archive --authorize\n";
        assert!(text.contains(command), "{text}");
    }
}
