//! Build products, as pages and the API tell of them.

use deadpool_postgres::GenericClient;
use jiff::Timestamp;

use crate::products::hash;
use crate::statement::{Record, statement};
use crate::{BuildId, DatabaseError, ProductId};

/// A file offered for download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// Its key.
    pub id: ProductId,
    /// The build it is of.
    pub build: BuildId,
    /// What the specification calls it.
    pub kind: String,
    /// The path it has in the store.
    pub path: String,
    /// The name it is downloaded under.
    pub name: String,
    /// Whether it is the archive of a directory.
    pub directory: bool,
    /// Its size in bytes.
    pub file_size: i64,
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
    /// When it was taken.
    pub created_at: Timestamp,
}

/// Something that a specification wants of a build and that is not here, or not all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingProduct {
    /// The specification.
    pub specification: String,
    /// What it calls it.
    pub kind: String,
    /// The output's name.
    pub output: String,
    /// The pattern of its path in the output.
    pub path: String,
    /// Whether it may still come.
    pub awaited: bool,
    /// Why it is not here.
    pub message: Option<String>,
}

/// Which product of a type is the latest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LatestFilter {
    /// Only of builds or jobs whose names begin so.
    pub name: Option<String>,
    /// Only of jobs of this name.
    pub job: Option<String>,
    /// Only those that this specification wants.
    pub specification: Option<String>,
    /// Only those for this system.
    pub system: Option<String>,
}

/// Where a product is to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedProduct {
    /// The product.
    pub product: Product,
    /// The server that holds it.
    pub server: String,
    /// Where that publishes.
    pub publish_url: Option<String>,
}

/// Reads the products of some builds, by build, type and path.
///
/// # Errors
/// [`DatabaseError::Statement`] or [`DatabaseError::BadRow`].
pub async fn products(
    client: &impl GenericClient,
    builds: &[BuildId],
) -> Result<Vec<Product>, DatabaseError> {
    statement!("pages/products").all(client, &[&builds]).await?.iter().map(read).collect()
}

/// Reads what is wanted of a build and is not here, or not all of it, `limit` at most.
///
/// # Errors
/// As [`products`].
pub async fn missing_products(
    client: &impl GenericClient,
    build: BuildId,
    limit: i64,
) -> Result<Vec<MissingProduct>, DatabaseError> {
    let rows = statement!("pages/product_requests").all(client, &[&build, &limit]).await?;
    rows.iter()
        .map(|row| {
            let state: &str = row.get("state")?;
            Ok(MissingProduct {
                specification: row.get("specification")?,
                kind: row.get("type")?,
                output: row.get("output")?,
                path: row.get("path")?,
                awaited: state == "wanted",
                message: row.get("message")?,
            })
        })
        .collect()
}

/// Finds a product and where it is.
///
/// # Errors
/// As [`products`].
pub async fn product(
    client: &impl GenericClient,
    id: ProductId,
) -> Result<Option<PlacedProduct>, DatabaseError> {
    let row = statement!("pages/product").optional(client, &[&id]).await?;
    row.map(|row| {
        Ok(PlacedProduct {
            product: read(&row)?,
            server: row.get("server")?,
            publish_url: row.get("publish_url")?,
        })
    })
    .transpose()
}

/// Finds the product of a type that belongs to the newest evaluation. Only the last ten thousand of the type are looked through.
///
/// # Errors
/// As [`products`].
pub async fn latest_product(
    client: &impl GenericClient,
    kind: &str,
    filter: &LatestFilter,
) -> Result<Option<ProductId>, DatabaseError> {
    let LatestFilter { name, job, specification, system } = filter;
    let row = statement!("pages/latest_product")
        .optional(client, &[&kind, name, job, specification, system])
        .await?;
    row.map(|row| row.get("id")).transpose()
}

fn read(row: &Record) -> Result<Product, DatabaseError> {
    Ok(Product {
        id: row.get("id")?,
        build: row.get("build_id")?,
        kind: row.get("type")?,
        path: row.get("path")?,
        name: row.get("name")?,
        directory: row.get("directory")?,
        file_size: row.get("file_size")?,
        sha256: hash(row)?,
        created_at: row.get("created_at")?,
    })
}
