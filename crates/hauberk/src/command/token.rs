//! `hauberk worker token`: makes tokens by which new machines join, lists them, and takes them back.

use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use hauberk_database::tokens::{self, NewToken, Spent, Token};
use hauberk_database::{TokenId, operators};
use hauberk_protocol::EnrolmentToken;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use crate::command::{DatabaseLocation, user};
use crate::exit::Failure;
use crate::keys::curve_public_key;
use crate::output::{Form, Table, at, moment};

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
    form: Form,

    #[command(flatten)]
    location: DatabaseLocation,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print all tokens that were made; the tokens themselves are not kept
    List {
        #[command(flatten)]
        form: Form,
        #[command(flatten)]
        location: DatabaseLocation,
    },
    /// Take a token back; workers that have joined by it stay
    Revoke {
        /// Its number
        id: TokenId,
        #[command(flatten)]
        form: Form,
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
        Some(Action::List { form, location }) => list(form, &location).await,
        Some(Action::Revoke { id, form, location }) => {
            operators::revoke_token(&location.connect().await?, &user(), id).await?;
            form.show(&json!({ "revoked": id }), || format!("revoked token {id}\n"))
        }
    }
}

async fn make(new: New) -> Result<(), Failure> {
    let New { name, uses, expires, systems, server_key, form, location } = new;
    if name.is_some() && uses != 1 {
        return Err(Failure::configuration(anyhow!("a token with a --name admits one machine")));
    }
    let database = location.connect().await?;
    let server = match server_key {
        Some(key) => curve_public_key(&key)?,
        None => curve_public_key(&operators::server_key(&database.client().await?).await?)?,
    };
    let token = EnrolmentToken::generate(&server);
    let new = NewToken {
        digest: &token.digest(),
        name: name.as_deref(),
        systems: (!systems.is_empty()).then_some(systems.as_slice()),
        uses,
        lifetime: expires,
        created_by: &user(),
    };
    let id = operators::make_token(&database, new).await?;
    tracing::info!(
        token.id = %id,
        "token {id} is shown only here; on the new machine: hauberk remote-worker --enrol TOKEN"
    );
    form.show(&json!({ "id": id, "token": token.to_string() }), || format!("{token}\n"))
}

/// A token, for programs.
#[derive(Debug, Serialize)]
struct TokenObject<'a> {
    id: TokenId,
    state: &'static str,
    name: Option<&'a str>,
    systems: Option<&'a [String]>,
    uses: i32,
    used: i32,
    created_by: &'a str,
    #[serde(serialize_with = "at")]
    created_at: Timestamp,
    #[serde(serialize_with = "at")]
    expires_at: Timestamp,
}

impl<'a> From<&'a Token> for TokenObject<'a> {
    fn from(token: &'a Token) -> Self {
        Self {
            id: token.id,
            state: state(token),
            name: token.name.as_deref(),
            systems: token.systems.as_deref(),
            uses: token.uses,
            used: token.used,
            created_by: &token.created_by,
            created_at: token.created_at,
            expires_at: token.expires_at,
        }
    }
}

async fn list(form: Form, location: &DatabaseLocation) -> Result<(), Failure> {
    let database = location.connect().await?;
    let all = tokens::list(&database.client().await?).await?;
    let objects: Vec<TokenObject<'_>> = all.iter().map(TokenObject::from).collect();
    form.show(&objects, || {
        let mut table = Table::new(&["#TOKEN", "STATE", "#USED", "EXPIRES", "BY", "NAME", "SYSTEMS"]);
        for token in &all {
            table.row([
                token.id.to_string(),
                state(token).to_owned(),
                format!("{} of {}", token.used, token.uses),
                moment(Some(token.expires_at)),
                token.created_by.clone(),
                token.name.clone().unwrap_or_else(|| "-".to_owned()),
                token.systems.as_ref().map_or_else(|| "-".to_owned(), |systems| systems.join(",")),
            ]);
        }
        table.text()
    })
}

fn state(token: &Token) -> &'static str {
    match token.spent() {
        None => "good",
        Some(Spent::Revoked) => "revoked",
        Some(Spent::Expired) => "expired",
        Some(Spent::Used) => "used",
    }
}

#[cfg(test)]
mod tests {
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
}
