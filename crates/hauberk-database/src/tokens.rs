//! The table `enrolment_tokens`: by which new machines join without anybody carrying keys.

use std::time::Duration;

use deadpool_postgres::GenericClient;
use jiff::Timestamp;

use crate::statement::{Record, statement};
use crate::workers::{self, Enrolment, NewWorker};
use crate::{DatabaseError, TokenId};

/// A token to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewToken<'a> {
    /// SHA-256 of the token.
    pub digest: &'a [u8; 32],
    /// The name that the worker gets, if it is not to choose.
    pub name: Option<&'a str>,
    /// The systems that workers enrolled by it may build for; `None`: those they say.
    pub systems: Option<&'a [String]>,
    /// Workers that it admits; 1 at least.
    pub uses: i32,
    /// How long it is good.
    pub lifetime: Duration,
    /// Who makes it.
    pub created_by: &'a str,
}

/// A token, as far as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Names it.
    pub id: TokenId,
    /// The name that the worker gets, if it is not to choose.
    pub name: Option<String>,
    /// The systems that workers enrolled by it may build for.
    pub systems: Option<Vec<String>>,
    /// Workers that it admits.
    pub uses: i32,
    /// Workers that it has admitted.
    pub used: i32,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When it was taken back.
    pub revoked_at: Option<Timestamp>,
    /// Whether it has ended, by the database's clock.
    pub expired: bool,
}

/// Why a token admits nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spent {
    /// It was taken back.
    Revoked,
    /// It has ended.
    Expired,
    /// It has admitted as many as it may.
    Used,
}

impl Token {
    /// Tells why it admits nobody, unless it does.
    pub fn spent(&self) -> Option<Spent> {
        if self.revoked_at.is_some() {
            Some(Spent::Revoked)
        } else if self.used >= self.uses {
            Some(Spent::Used)
        } else if self.expired {
            Some(Spent::Expired)
        } else {
            None
        }
    }
}

/// Makes a token.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn make(client: &impl GenericClient, token: NewToken<'_>) -> Result<TokenId, DatabaseError> {
    let NewToken { digest, name, systems, uses, lifetime, created_by } = token;
    statement!("tokens/make")
        .one(client, &[&digest.as_slice(), &name, &systems, &uses, &lifetime.as_secs_f64(), &created_by])
        .await?
        .get("id")
}

/// Gives all tokens that were ever made, oldest first.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn list(client: &impl GenericClient) -> Result<Vec<Token>, DatabaseError> {
    statement!("tokens/list").all(client, &[]).await?.iter().map(token).collect()
}

/// Takes a token back. False when there is none of that id, or it was taken back before.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn revoke(client: &impl GenericClient, id: TokenId) -> Result<bool, DatabaseError> {
    Ok(statement!("tokens/revoke").optional(client, &[&id]).await?.is_some())
}

/// Somebody who presents a token.
#[derive(Debug, Clone, Copy)]
pub struct Applicant<'a> {
    /// The name it would like.
    pub name: &'a str,
    /// The CURVE public key it has proved to own, Z85.
    pub public_key: &'a str,
    /// The public key its results will be signed with.
    pub signing_key: &'a str,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redeemed {
    /// The worker is enrolled, under this name.
    Enrolled {
        /// The name.
        name: String,
        /// The token.
        token: TokenId,
        /// Who made the token.
        created_by: String,
    },
    /// The worker had been enrolled by this token before, and did not hear of it.
    Before {
        /// Its name.
        name: String,
    },
    /// There is no such token.
    Unknown,
    /// The token admits nobody any more.
    Spent(TokenId, Spent),
    /// Another worker has the name.
    NameTaken(String),
    /// The key belongs to another worker.
    KeyTaken,
}

/// Enrols whoever presents the token of a digest. Anything but [`Redeemed::Enrolled`] is to be followed by a rollback.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn redeem(
    client: &impl GenericClient,
    digest: &[u8; 32],
    applicant: Applicant<'_>,
) -> Result<Redeemed, DatabaseError> {
    let Some(record) = statement!("tokens/find").optional(client, &[&digest.as_slice()]).await? else {
        return Ok(Redeemed::Unknown);
    };
    let token = token(&record)?;
    let Applicant { name, public_key, signing_key } = applicant;
    let before = statement!("tokens/enrolled_before")
        .optional(client, &[&token.id, &public_key, &signing_key])
        .await?;
    if let Some(before) = before {
        return Ok(Redeemed::Before { name: before.get("name")? });
    }
    if let Some(spent) = token.spent() {
        return Ok(Redeemed::Spent(token.id, spent));
    }
    let name = token.name.as_deref().unwrap_or(name);
    let enrolled_by = format!("token {} of {}", token.id, token.created_by);
    let new = NewWorker { name, public_key, signing_key, enrolled_by: &enrolled_by };
    match workers::add(client, new).await? {
        Enrolment::Done(worker) => {
            statement!("tokens/use").execute(client, &[&token.id, &worker]).await?;
            Ok(Redeemed::Enrolled { name: name.to_owned(), token: token.id, created_by: token.created_by })
        }
        Enrolment::NameTaken => Ok(Redeemed::NameTaken(name.to_owned())),
        Enrolment::KeyTaken => Ok(Redeemed::KeyTaken),
    }
}

fn token(record: &Record) -> Result<Token, DatabaseError> {
    Ok(Token {
        id: record.get("id")?,
        name: record.get("name")?,
        systems: record.get("systems")?,
        uses: record.get("uses")?,
        used: record.get("used")?,
        created_at: record.get("created_at")?,
        created_by: record.get("created_by")?,
        expires_at: record.get("expires_at")?,
        revoked_at: record.get("revoked_at")?,
        expired: record.get("expired")?,
    })
}
