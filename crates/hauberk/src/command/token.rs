//! `hauberk worker token`: makes tokens by which new machines join, lists them, and takes them back.

use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use hauberk_database::tokens::{self, NewToken, Spent, Token};
use hauberk_database::{Database, TokenId, audit, begin, commit, servers};
use hauberk_protocol::EnrolmentToken;
use hauberk_protocol::keys::CurvePublicKey;
use serde_json::json;

use crate::command::{DatabaseLocation, print, user};
use crate::exit::Failure;
use crate::keys::curve_public_key;

/// What a token is to be, or what is to be done with those there are.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Option<Action>,

    #[command(flatten)]
    new: New,
}

#[derive(Debug, Args)]
struct New {
    /// The name of the worker; without it, each machine's own
    #[arg(long)]
    name: Option<String>,

    /// Machines that may join by it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    uses: i32,

    /// How long it is good: a number with `m` (minutes), `h` or `d`
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_lifetime)]
    expires: Duration,

    /// The only systems that workers which join by it may build for, separated by commas
    #[arg(short = 'S', long, value_name = "SYSTEMS", value_delimiter = ',')]
    systems: Vec<String>,

    /// The public CURVE key of the server it is for, or the file that holds it [default: the key of the farm's server]
    #[arg(long, value_name = "KEY|FILE", allow_hyphen_values = true)]
    server_key: Option<String>,

    #[command(flatten)]
    location: DatabaseLocation,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print all tokens that were made; the tokens themselves are not kept
    List {
        #[command(flatten)]
        location: DatabaseLocation,
    },
    /// Take a token back; workers that have joined by it stay
    Revoke {
        /// Its number
        id: TokenId,
        #[command(flatten)]
        location: DatabaseLocation,
    },
}

fn parse_lifetime(text: &str) -> Result<Duration, String> {
    const LONGEST: u64 = 365 * 24 * 3600;
    let wrong = || "give a number above 0 with `m`, `h` or `d`, such as `30m`; a year at most".to_owned();
    let unit = match text.chars().next_back() {
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 24 * 3600,
        _ => return Err(wrong()),
    };
    let number: u32 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    let seconds = u64::from(number) * unit;
    if (1..=LONGEST).contains(&seconds) { Ok(Duration::from_secs(seconds)) } else { Err(wrong()) }
}

/// Does what the command says.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    match options.action {
        None => make(options.new).await,
        Some(Action::List { location }) => list(&location).await,
        Some(Action::Revoke { id, location }) => revoke(id, &location).await,
    }
}

async fn make(new: New) -> Result<(), Failure> {
    let New { name, uses, expires, systems, server_key, location } = new;
    if name.is_some() && uses != 1 {
        return Err(Failure::configuration(anyhow!("a token with a --name admits one machine")));
    }
    let database = Database::connect(&location.parse()?, 1).await?;
    let mut client = database.client().await?;
    let server = match server_key {
        Some(key) => curve_public_key(&key)?,
        None => only_key(&servers::public_keys(&client).await?)?,
    };
    let token = EnrolmentToken::generate(&server);
    let who = user();
    let transaction = begin(&mut client).await?;
    let id = tokens::make(
        &transaction,
        NewToken {
            digest: &token.digest(),
            name: name.as_deref(),
            systems: (!systems.is_empty()).then_some(systems.as_slice()),
            uses,
            lifetime: expires,
            created_by: &who,
        },
    )
    .await?;
    let detail = json!({ "name": name, "uses": uses, "seconds": expires.as_secs(), "systems": systems });
    audit::record(&transaction, &who, "token.make", &id.to_string(), Some(&detail)).await?;
    commit(transaction).await?;
    tracing::info!(
        token.id = %id,
        "token {id} is shown only here; on the new machine: hauberk remote-worker --enrol TOKEN"
    );
    print(format_args!("{token}"))
}

/// The key that all servers of the farm have.
fn only_key(servers: &[(String, String)]) -> Result<CurvePublicKey, Failure> {
    let Some((_, first)) = servers.first() else {
        return Err(Failure::configuration(anyhow!(
            "no server with a key has started yet: start it, or give --server-key"
        )));
    };
    if servers.iter().any(|(_, key)| key != first) {
        let names: Vec<_> = servers.iter().map(|(name, _)| name.as_str()).collect();
        return Err(Failure::configuration(anyhow!(
            "the servers {} have different keys: say by --server-key which one new machines are to ask",
            names.join(", ")
        )));
    }
    curve_public_key(first)
}

async fn list(location: &DatabaseLocation) -> Result<(), Failure> {
    let database = Database::connect(&location.parse()?, 1).await?;
    let all = tokens::list(&database.client().await?).await?;
    print(format_args!(
        "{:>5}  {:8}  {:>9}  {:20}  {:12}  {:16}  SYSTEMS",
        "TOKEN", "STATE", "USED", "EXPIRES", "BY", "NAME"
    ))?;
    for token in all {
        let used = format!("{} of {}", token.used, token.uses);
        print(format_args!(
            "{:>5}  {:8}  {used:>9}  {:20}  {:12}  {:16}  {}",
            token.id.get(),
            state(&token),
            token.expires_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            token.created_by,
            token.name.as_deref().unwrap_or("-"),
            token.systems.as_ref().map_or_else(|| "-".to_owned(), |systems| systems.join(","))
        ))?;
    }
    Ok(())
}

fn state(token: &Token) -> &'static str {
    match token.spent() {
        None => "good",
        Some(Spent::Revoked) => "revoked",
        Some(Spent::Expired) => "expired",
        Some(Spent::Used) => "used",
    }
}

async fn revoke(id: TokenId, location: &DatabaseLocation) -> Result<(), Failure> {
    let database = Database::connect(&location.parse()?, 1).await?;
    let mut client = database.client().await?;
    let transaction = begin(&mut client).await?;
    if !tokens::revoke(&transaction, id).await? {
        return Err(Failure::configuration(anyhow!(
            "there is no token {id}, or it was revoked already; `hauberk worker token list` shows all"
        )));
    }
    audit::record(&transaction, &user(), "token.revoke", &id.to_string(), None).await?;
    commit(transaction).await?;
    print(format_args!("revoked token {id}"))
}

#[cfg(test)]
mod tests {
    use hauberk_protocol::keys::CurveKeyPair;

    use super::*;

    #[test]
    fn lifetimes_are_read() {
        for (text, seconds) in [("30m", 1800), ("1h", 3600), ("7d", 7 * 86_400), ("365d", 365 * 86_400)] {
            assert_eq!(parse_lifetime(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "h", "0h", "1", "-1d", "366d", "1w", "4294967296m", "1\u{e9}"] {
            assert!(parse_lifetime(text).is_err(), "{text}");
        }
    }

    #[test]
    fn servers_with_one_key_need_not_be_named() {
        let [a, b] = [(); 2].map(|()| CurveKeyPair::generate().public().to_string());
        let server = |name: &str, key: &String| (name.to_owned(), key.clone());
        assert!(only_key(&[]).is_err());
        assert_eq!(only_key(&[server("x", &a), server("y", &a)]).unwrap().to_string(), a);
        assert!(only_key(&[server("x", &a), server("y", &b)]).unwrap_err().text().contains("x, y"));
    }
}
