//! Finds out whether the build daemon accepts what a server signs.

use hauberk_daemon::{BuildDaemon, DaemonError};
use hauberk_store::{NarInfo, StoreDirectory};

use super::inputs::path_info;
use crate::builder::{Server, Unaccepted};

/// Adds the server's probe, a path that nobody needs. The daemon checks its signature whether or not it has the path.
pub(crate) async fn check(
    server: &Server,
    directory: &StoreDirectory,
    daemon: &mut dyn BuildDaemon,
) -> Result<(), Unaccepted> {
    let Some(probe) = &server.trust_probe else {
        tracing::warn!(server.name = %server.name, "server {} gives nothing to try its key with", server.name);
        return Ok(());
    };
    let narinfo = NarInfo::parse(directory, &probe.narinfo)
        .map_err(|source| Unaccepted::Unknown { source: Box::new(source) })?;
    match daemon.add_nar(&path_info(&narinfo), &mut probe.nar.as_ref(), false).await {
        Ok(()) => Ok(()),
        Err(DaemonError::Daemon { message, .. }) => {
            Err(Unaccepted::Refused { message: remedy(server, &message) })
        }
        Err(error) => Err(Unaccepted::Unknown { source: Box::new(error) }),
    }
}

/// Says what is wrong and what mends it, in a form that can be pasted.
fn remedy(server: &Server, message: &str) -> String {
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
        let text = remedy(&server, "cannot add path because it lacks a valid signature\ntrace");
        assert!(text.contains("extra-trusted-public-keys = north-1:abc="), "{text}");
        assert!(text.contains("/etc/nix/nix.conf") && !text.contains("trace"), "{text}");
    }
}
