//! What of the farm's outputs is kept, and the removal of the rest.
//!
//! A build whose outputs were removed stays succeeded, and is *collected*: an evaluation that wants it, or that wants something that needs
//! it, has it begin anew. Removing takes two transactions. The first marks builds while no evaluation is published, and spares what an
//! unfinished build needs; the second holds those that are still marked still, so that nobody brings back what is just being removed.

use std::collections::HashSet;

use deadpool_postgres::{Client, GenericClient, Transaction};
use hauberk_store::StorePath;

use crate::products::{hash, hashes};
use crate::statement::{Record, statement};
use crate::{DatabaseError, ProductId, ServerId, begin, commit};

/// Paths asked about at once.
const BATCH: usize = 10_000;

/// How far publication had come when it was asked what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsOf(i64);

impl AsOf {
    /// Looks how far it has come.
    ///
    /// # Errors
    /// [`DatabaseError::Statement`].
    pub async fn now(client: &impl GenericClient) -> Result<Self, DatabaseError> {
        Ok(Self(statement!("retention/as_of").one(client, &[]).await?.get("published")?))
    }
}

/// Gives the servers of the farm with their names, or those of these names if there are any.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn servers(
    client: &impl GenericClient,
    names: &[String],
) -> Result<Vec<(ServerId, String)>, DatabaseError> {
    let records = statement!("retention/servers").all(client, &[&names]).await?;
    records.iter().map(|record| Ok((record.get("id")?, record.get("name")?))).collect()
}

/// Gives the outputs of builds that are not finished, and of what those need.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn needed(client: &impl GenericClient) -> Result<HashSet<StorePath>, DatabaseError> {
    paths(&statement!("retention/needed").all(client, &[]).await?)
}

/// Gives the outputs of the jobs of the evaluations that each specification's `keep-evaluations` keeps, the last one at least, and of all that
/// those were built from.
///
/// # Errors
/// As [`needed`].
pub async fn wanted_first(client: &impl GenericClient) -> Result<HashSet<StorePath>, DatabaseError> {
    paths(&statement!("retention/wanted").all(client, &[&true]).await?)
}

/// Gives those of [`wanted_first`] and those that are kept by `keep-days`, or because their specification says nothing of keeping.
///
/// # Errors
/// As [`needed`].
pub async fn wanted(client: &impl GenericClient) -> Result<HashSet<StorePath>, DatabaseError> {
    paths(&statement!("retention/wanted").all(client, &[&false]).await?)
}

/// Gives the derivations of builds that are not finished.
///
/// # Errors
/// As [`needed`].
pub async fn needed_derivations(client: &impl GenericClient) -> Result<HashSet<StorePath>, DatabaseError> {
    paths(&statement!("retention/derivations").all(client, &[&true]).await?)
}

/// Gives those of [`needed_derivations`], and those of the jobs of each specification's last evaluation.
///
/// # Errors
/// As [`needed`].
pub async fn wanted_derivations(client: &impl GenericClient) -> Result<HashSet<StorePath>, DatabaseError> {
    paths(&statement!("retention/derivations").all(client, &[&false]).await?)
}

/// Tells which of these paths a build of the farm gives.
///
/// # Errors
/// As [`needed`].
pub async fn known(
    client: &impl GenericClient,
    asked: &[&StorePath],
) -> Result<HashSet<StorePath>, DatabaseError> {
    let mut known = HashSet::new();
    for batch in asked.chunks(BATCH) {
        known.extend(paths(&statement!("retention/known").all(client, &[&texts(batch)]).await?)?);
    }
    Ok(known)
}

/// Marks the builds of these outputs, of a cache of `servers`, as collected, except those that are needed after all. Gives false, and marks no more, when an evaluation
/// has been published since `as_of`, which may want some of them.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::Transaction`].
pub async fn collect(
    client: &mut Client,
    servers: &[ServerId],
    as_of: AsOf,
    going: &[&StorePath],
) -> Result<bool, DatabaseError> {
    for batch in going.chunks(BATCH) {
        let transaction = begin(client).await?;
        statement!("registration/lock").execute(&transaction, &[]).await?;
        if AsOf::now(&transaction).await? != as_of {
            return Ok(false);
        }
        statement!("retention/collect").execute(&transaction, &[&texts(batch), &servers]).await?;
        commit(transaction).await?;
    }
    Ok(true)
}

/// Outputs that may be removed now. As long as this stands, their builds do not begin anew.
#[derive(Debug)]
pub struct Removal<'a> {
    transaction: Transaction<'a>,
    servers: Vec<ServerId>,
    /// What may be removed.
    pub paths: HashSet<StorePath>,
    own: Vec<String>,
}

impl<'a> Removal<'a> {
    /// Takes those of `going` that may be removed from a cache of `servers`: their builds are collected, or another server has them.
    ///
    /// # Errors
    /// [`DatabaseError::Statement`], [`DatabaseError::BadRow`] or [`DatabaseError::Transaction`].
    pub async fn begin(
        client: &'a mut Client,
        servers: &[ServerId],
        going: &[&StorePath],
    ) -> Result<Self, DatabaseError> {
        let transaction = begin(client).await?;
        let records = statement!("retention/removable").all(&transaction, &[&texts(going), &servers]).await?;
        let mut own = Vec::new();
        for record in &records {
            if record.get("own")? {
                own.push(record.get("path")?);
            }
        }
        Ok(Self { transaction, servers: servers.to_vec(), paths: paths(&records)?, own })
    }

    /// Records that they were removed.
    ///
    /// # Errors
    /// [`DatabaseError::Statement`] or [`DatabaseError::Transaction`]; the outputs stay marked, and are looked for in vain, until they are removed again.
    pub async fn done(self) -> Result<(), DatabaseError> {
        statement!("retention/removed").execute(&self.transaction, &[&self.own, &self.servers]).await?;
        commit(self.transaction).await
    }
}

/// How firmly a product is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keep {
    /// No evaluation that is to be kept wants it.
    No,
    /// One wants it, because of `keep-days` or because its specification says nothing of keeping.
    Weakly,
    /// One of the evaluations that [`wanted_first`] goes by wants it.
    Firmly,
}

/// A product that a server has.
#[derive(Debug, Clone)]
pub struct KeptProduct {
    /// Its key.
    pub id: ProductId,
    /// SHA-256 of its bytes; several products may have the same.
    pub sha256: [u8; 32],
    /// The name it is downloaded under.
    pub name: String,
    /// The output it was taken out of.
    pub output: Option<StorePath>,
    /// Whether it is kept.
    pub keep: Keep,
}

/// Gives the products that servers have.
///
/// # Errors
/// As [`needed`].
pub async fn products(
    client: &impl GenericClient,
    servers: &[ServerId],
) -> Result<Vec<KeptProduct>, DatabaseError> {
    let rows = statement!("retention/products").all(client, &[&servers]).await?;
    rows.iter()
        .map(|row| {
            let path: Option<&str> = row.get("output_path")?;
            let hold: i32 = row.get("hold")?;
            Ok(KeptProduct {
                id: row.get("id")?,
                sha256: hash(row)?,
                name: row.get("name")?,
                output: match path {
                    Some(_) => Some(row.parse("output_path")?),
                    None => None,
                },
                keep: match hold {
                    0 => Keep::No,
                    1 => Keep::Weakly,
                    _ => Keep::Firmly,
                },
            })
        })
        .collect()
}

/// Takes products off the record, with all others of the same requests, and whatever no evaluation that is to be kept waits for any more. Gives
/// false, and changes nothing, when an evaluation has been published since `as_of`.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::Transaction`].
pub async fn collect_products(
    client: &mut Client,
    servers: &[ServerId],
    as_of: AsOf,
    going: &[ProductId],
) -> Result<bool, DatabaseError> {
    let transaction = begin(client).await?;
    statement!("registration/lock").execute(&transaction, &[]).await?;
    if AsOf::now(&transaction).await? != as_of {
        return Ok(false);
    }
    statement!("retention/collect_products").execute(&transaction, &[&going, &servers]).await?;
    statement!("retention/unwanted_requests").execute(&transaction, &[]).await?;
    commit(transaction).await?;
    Ok(true)
}

/// Tells which of these hashes are those of products that servers are to have.
///
/// # Errors
/// As [`needed`].
pub async fn named_products(
    client: &impl GenericClient,
    servers: &[ServerId],
    asked: &[[u8; 32]],
) -> Result<HashSet<[u8; 32]>, DatabaseError> {
    let mut named = HashSet::new();
    for batch in asked.chunks(BATCH) {
        let batch: Vec<&[u8]> = batch.iter().map(<[u8; 32]>::as_slice).collect();
        let rows = statement!("retention/named_products").all(client, &[&servers, &batch]).await?;
        named.extend(hashes(&rows)?);
    }
    Ok(named)
}

fn texts(paths: &[&StorePath]) -> Vec<String> {
    paths.iter().map(ToString::to_string).collect()
}

fn paths(records: &[Record]) -> Result<HashSet<StorePath>, DatabaseError> {
    records.iter().map(|record| record.parse("path")).collect()
}
