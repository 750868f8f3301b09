//! Where the database is, as an operator writes it.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};

/// Where Debian's PostgreSQL has its socket; taken when no host is named, as libpq does.
const DEFAULT_SOCKET_DIRECTORY: &str = "/var/run/postgresql";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A silent peer is given up after this time.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
/// What every session is set to, unless the connection string has options of its own. Compiling a plan takes longer than
/// running any of ours; and a transaction that its program forgot must not hold the others up.
const SESSION: &str = "-c jit=off -c idle_in_transaction_session_timeout=120000";
const KEEPALIVES_IDLE: Duration = Duration::from_secs(30);

/// A checked connection string: `host=… dbname=… user=…` or `postgresql://…`, as libpq reads them.
///
/// Its text forms leave the password out.
#[derive(Clone)]
pub struct ConnectionString {
    text: String,
    config: tokio_postgres::Config,
}

/// Why a text is not a connection string.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionStringError {
    /// It is neither keywords with values nor a URL, or a value is not of its kind.
    #[error(
        "the database's connection string cannot be read; write `host=… dbname=… user=…` or `postgresql://…`"
    )]
    Syntax {
        /// What the driver said; it names the option, never the password.
        #[source]
        source: tokio_postgres::Error,
    },
    /// It asks for TLS.
    #[error(
        "the database's connection string asks for sslmode=require, and TLS to PostgreSQL is not supported; \
         use a unix socket, a loopback address or a tunnel"
    )]
    Tls,
}

impl ConnectionString {
    /// Gives the text as it was written, password included: for handing to another process.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    pub(crate) fn config(&self) -> &tokio_postgres::Config {
        &self.config
    }
}

impl FromStr for ConnectionString {
    type Err = ConnectionStringError;

    fn from_str(text: &str) -> Result<Self, ConnectionStringError> {
        let mut config = text
            .parse::<tokio_postgres::Config>()
            .map_err(|source| ConnectionStringError::Syntax { source })?;
        if config.get_ssl_mode() == SslMode::Require {
            return Err(ConnectionStringError::Tls);
        }
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            config.host_path(Path::new(DEFAULT_SOCKET_DIRECTORY));
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("hauberk");
        }
        if config.get_options().is_none() {
            config.options(SESSION);
        }
        config.tcp_user_timeout(TCP_USER_TIMEOUT);
        config.keepalives_idle(KEEPALIVES_IDLE);
        Ok(Self { text: text.to_owned(), config })
    }
}

impl fmt::Display for ConnectionString {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.config.get_ports();
        for (index, host) in self.config.get_hosts().iter().enumerate() {
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) => write!(formatter, "host={name} port={port} ")?,
                Host::Unix(directory) => write!(formatter, "host={} port={port} ", directory.display())?,
            }
        }
        for address in self.config.get_hostaddrs() {
            write!(formatter, "hostaddr={address} ")?;
        }
        match (self.config.get_dbname(), self.config.get_user()) {
            (Some(database), Some(user)) => write!(formatter, "dbname={database} user={user}"),
            (Some(database), None) => write!(formatter, "dbname={database}"),
            (None, Some(user)) => write!(formatter, "user={user}"),
            (None, None) => formatter.write_str("(default database)"),
        }
    }
}

impl fmt::Debug for ConnectionString {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ConnectionString({self})")
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn both_forms_are_read_and_no_password_is_shown() {
        for (text, shown) in [
            (
                "host=db.example dbname=farm user=f password=hush",
                "host=db.example port=5432 dbname=farm user=f",
            ),
            ("postgresql://f:hush@db.example:5433/farm", "host=db.example port=5433 dbname=farm user=f"),
            ("postgresql://f@%2Frun%2Fpg/farm", "host=/run/pg port=5432 dbname=farm user=f"),
            ("dbname=farm user=f", "host=/var/run/postgresql port=5432 dbname=farm user=f"),
        ] {
            let parsed: ConnectionString = text.parse().unwrap();
            assert_eq!(parsed.to_string(), shown);
            assert!(!format!("{parsed:?}").contains("hush"));
            assert_eq!(parsed.reveal(), text);
        }
    }

    #[test]
    fn a_bad_one_names_what_is_wrong_without_the_password() {
        for text in [
            "host=a port=many password=hush",
            "http://f:hush@db/farm",
            "password='hush",
            "bogus=1 password=hush",
        ] {
            let error = text.parse::<ConnectionString>().unwrap_err();
            let mut whole = error.to_string();
            let mut source = error.source();
            while let Some(error) = source {
                whole.push_str(&format!(": {error}"));
                source = error.source();
            }
            assert!(!whole.contains("hush"), "{whole}");
        }
        assert!(matches!(
            "host=a sslmode=require".parse::<ConnectionString>(),
            Err(ConnectionStringError::Tls)
        ));
    }
}
