//! Build products: what is to be taken out of the outputs of builds, and what became of it.
//!
//! Publishing an evaluation records what its specification wants ([`NewProduct`](crate::registration::NewProduct)); the server that has the
//! outputs takes the files and records them. A product's row exists only once its file is durable.

use deadpool_postgres::{GenericClient, Transaction};
use hauberk_store::StorePath;

use crate::statement::{Record, statement};
use crate::{AttemptId, BuildId, DatabaseError, ProductRequestId, ServerId};

/// What a specification wants of a build that has succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductRequest {
    /// Its key.
    pub id: ProductRequestId,
    /// The build.
    pub build: BuildId,
    /// The build's generation.
    pub generation: i32,
    /// The output's name.
    pub output: String,
    /// The output; none where the build has none of that name.
    pub output_path: Option<StorePath>,
    /// Which files of it, as a pattern.
    pub path: String,
    /// Tries that failed by the farm's fault.
    pub tries: i16,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// There are products; of some it may have to be said why they are missing.
    Taken {
        /// The products.
        products: Vec<TakenProduct>,
        /// What else there would be.
        message: Option<String>,
    },
    /// There is nothing of that name.
    Missing(String),
    /// There is, and it is not taken.
    Refused(String),
}

/// A product whose file is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenProduct {
    /// The path it has in the store.
    pub path: String,
    /// The name it is downloaded under.
    pub name: String,
    /// Whether it is the archive of a directory.
    pub directory: bool,
    /// Its size in bytes.
    pub file_size: u64,
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
}

/// Tells whether any product is still to be taken.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn any_wanted(client: &impl GenericClient) -> Result<bool, DatabaseError> {
    statement!("products/any_wanted").one(client, &[]).await?.get("wanted")
}

/// Gives what is wanted of builds that have succeeded and whose outputs a server has, `limit` requests at most.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn due(
    client: &impl GenericClient,
    server: ServerId,
    limit: i64,
) -> Result<Vec<ProductRequest>, DatabaseError> {
    statement!("products/due").all(client, &[&server, &limit]).await?.iter().map(read).collect()
}

/// Gives what is wanted of the builds of these attempts, as [`due`].
///
/// # Errors
/// As [`due`].
pub async fn due_of_attempts(
    client: &impl GenericClient,
    server: ServerId,
    attempts: &[AttemptId],
) -> Result<Vec<ProductRequest>, DatabaseError> {
    let rows = statement!("products/due_of_attempts").all(client, &[&server, &attempts]).await?;
    rows.iter().map(read).collect()
}

fn read(row: &Record) -> Result<ProductRequest, DatabaseError> {
    let path: Option<&str> = row.get("output_path")?;
    Ok(ProductRequest {
        id: row.get("id")?,
        build: row.get("build_id")?,
        generation: row.get("generation")?,
        output: row.get("output")?,
        output_path: match path {
            Some(_) => Some(row.parse("output_path")?),
            None => None,
        },
        path: row.get("path")?,
        tries: row.get("tries")?,
    })
}

/// Records what became of requests, whose products `server` has. One that is not wanted any more is left as it is.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn decide(
    transaction: &Transaction<'_>,
    server: ServerId,
    decisions: &[(&ProductRequest, Decision)],
) -> Result<(), DatabaseError> {
    for (request, decision) in decisions {
        let (state, message) = match decision {
            Decision::Taken { message, .. } => ("taken", message.as_deref()),
            Decision::Missing(message) => ("missing", Some(message.as_str())),
            Decision::Refused(message) => ("refused", Some(message.as_str())),
        };
        let decided = statement!("products/decide")
            .execute(transaction, &[&request.id, &state, &message, &request.generation])
            .await?;
        let Decision::Taken { products, .. } = decision else { continue };
        if decided == 0 {
            continue;
        }
        let paths: Vec<&str> = products.iter().map(|product| product.path.as_str()).collect();
        let names: Vec<&str> = products.iter().map(|product| product.name.as_str()).collect();
        let directories: Vec<bool> = products.iter().map(|product| product.directory).collect();
        let sizes: Vec<i64> =
            products.iter().map(|product| i64::try_from(product.file_size).unwrap_or(i64::MAX)).collect();
        let hashes: Vec<&[u8]> = products.iter().map(|product| product.sha256.as_slice()).collect();
        statement!("products/add")
            .execute(transaction, &[&request.id, &server, &paths, &names, &directories, &sizes, &hashes])
            .await?;
    }
    let mut builds: Vec<BuildId> = decisions.iter().map(|(request, _)| request.build).collect();
    builds.dedup();
    statement!("products/notify_changed").all(transaction, &[&builds]).await?;
    Ok(())
}

/// Records that requests could not be looked at by the farm's fault, and when they may be again.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn postpone(
    client: &impl GenericClient,
    requests: &[ProductRequestId],
    seconds: f64,
    why: &str,
) -> Result<(), DatabaseError> {
    statement!("products/postpone").execute(client, &[&requests, &seconds, &why]).await?;
    Ok(())
}

/// Gives the hashes of all products that a server is to have.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn held(client: &impl GenericClient, server: ServerId) -> Result<Vec<[u8; 32]>, DatabaseError> {
    hashes(&statement!("products/held").all(client, &[&server]).await?)
}

/// Records that a server does not have products any more: they are wanted again. Gives the number of requests that this concerns.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn lost(
    client: &impl GenericClient,
    server: ServerId,
    hashes: &[[u8; 32]],
) -> Result<u64, DatabaseError> {
    let hashes: Vec<&[u8]> = hashes.iter().map(<[u8; 32]>::as_slice).collect();
    statement!("products/lost").execute(client, &[&server, &hashes]).await
}

/// Reads a column of hashes.
pub(crate) fn hashes(rows: &[Record]) -> Result<Vec<[u8; 32]>, DatabaseError> {
    rows.iter().map(hash).collect()
}

/// Reads the hash of a row.
pub(crate) fn hash(row: &Record) -> Result<[u8; 32], DatabaseError> {
    let hash: &[u8] = row.get("sha256")?;
    hash.try_into().map_err(|source: std::array::TryFromSliceError| row.bad("sha256", source))
}
