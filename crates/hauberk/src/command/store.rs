//! Stores as the command line names them.

use hauberk_store::StoreDirectory;

/// Reads `nix`, `guix` or a directory.
pub(crate) fn parse_store(text: &str) -> Result<StoreDirectory, String> {
    match text {
        "nix" => Ok(StoreDirectory::nix()),
        "guix" => Ok(StoreDirectory::guix()),
        directory => directory.parse().map_err(|error| format!("give `nix`, `guix` or a directory: {error}")),
    }
}

/// Gives where the daemon of a store usually listens.
pub(crate) fn usual_daemon(store: &StoreDirectory) -> &'static str {
    if *store == StoreDirectory::guix() {
        "/var/guix/daemon-socket/socket"
    } else {
        "/nix/var/nix/daemon-socket/socket"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_directories_name_stores() {
        assert_eq!(parse_store("nix"), Ok(StoreDirectory::nix()));
        assert_eq!(parse_store("guix"), Ok(StoreDirectory::guix()));
        assert_eq!(parse_store("/gnu/store"), Ok(StoreDirectory::guix()));
        assert!(parse_store("gnu").unwrap_err().contains("`guix`"));
        assert!(usual_daemon(&StoreDirectory::guix()).starts_with("/var/guix/"));
        assert!(usual_daemon(&"/tmp/store".parse().unwrap()).starts_with("/nix/var/"));
    }
}
