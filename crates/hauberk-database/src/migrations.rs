//! The schema's versions, and the steps between them.
//!
//! A version is a folder `sql/migrations/NNNN_name/` with `up.sql`, which leads to it, and `down.sql`, which leads
//! back. The table `hauberk_schema` has a row for each step that was made.

use deadpool_postgres::{Client, GenericClient};
use jiff::Timestamp;

use crate::statement::statement;
use crate::{DatabaseError, connection};

/// A step of the schema.
#[derive(Debug, Clone, Copy)]
struct Migration {
    name: &'static str,
    up: &'static str,
    down: &'static str,
}

macro_rules! migration {
    ($folder:literal) => {
        Migration {
            name: $folder,
            up: include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../sql/migrations/",
                $folder,
                "/up.sql"
            )),
            down: include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../sql/migrations/",
                $folder,
                "/down.sql"
            )),
        }
    };
}

/// All steps; the first leads to version 1. Append only.
const MIGRATIONS: &[Migration] = &[
    migration!("0001_farm"),
    migration!("0002_control"),
    migration!("0003_waiting"),
    migration!("0004_log_expiry"),
    migration!("0005_hot_updates"),
    migration!("0006_order"),
    migration!("0007_enrolment"),
    migration!("0008_operators"),
    migration!("0009_collection"),
    migration!("0010_demands"),
    migration!("0011_health"),
    migration!("0012_servers"),
    migration!("0013_products"),
    migration!("0014_stores"),
    migration!("0015_counts"),
    migration!("0016_uploads"),
    migration!("0017_assigned"),
    migration!("0018_order_notes"),
    migration!("0019_path_steps"),
    migration!("0020_unordered_keys"),
];

/// The oldest version this program works with.
const OLDEST_KNOWN: i32 = 20;

/// Gives the newest version this program knows.
pub const fn newest() -> i32 {
    MIGRATIONS.len() as i32
}

/// Gives the oldest version this program works with.
pub const fn oldest() -> i32 {
    OLDEST_KNOWN
}

/// What a database holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SchemaState {
    /// No tables.
    Empty,
    /// Tables, and none of them ours.
    Foreign,
    /// Our tables.
    Versioned(i32),
}

/// One step that was made, or is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The version the step leads to (up), or away from (down).
    pub version: i32,
    /// The name of its folder.
    pub name: String,
    /// Whether it leads up.
    pub up: bool,
}

/// A step that a database has behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The version it led to.
    pub version: i32,
    /// The name of its folder.
    pub name: String,
    /// When it was made, by the database's clock.
    pub applied_at: Timestamp,
}

/// How a database's schema stands to this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The steps that were made, oldest first.
    pub applied: Vec<Applied>,
    /// The steps this program would make, oldest first.
    pub pending: Vec<Step>,
    /// The oldest version this program works with.
    pub oldest: i32,
    /// The newest version this program works with.
    pub newest: i32,
}

impl Status {
    /// Gives the version of the database's schema; 0 when there is none.
    pub fn version(&self) -> i32 {
        self.applied.last().map_or(0, |applied| applied.version)
    }
}

/// Brings the schema to version `to`, or to the newest, and gives the steps that it made.
///
/// Each step is a transaction. Of several programs that migrate at once, one does it and the others find it done.
/// Going down throws away what the left versions' tables hold; version 0 is no tables at all.
///
/// # Errors
/// [`DatabaseError::NoSuchVersion`], [`DatabaseError::Schema`] when the database is newer than this program, and
/// [`DatabaseError::Migration`], after which the steps before the failed one stay made.
pub async fn migrate(client: &mut Client, to: Option<i32>) -> Result<Vec<Step>, DatabaseError> {
    let target = to.unwrap_or(newest());
    if !(0..=newest()).contains(&target) {
        return Err(DatabaseError::NoSuchVersion { wanted: target, newest: newest() });
    }
    let mut steps = Vec::new();
    loop {
        let transaction = connection::begin(client).await?;
        statement!("schema/lock").execute(&transaction, &[]).await?;
        statement!("schema/make_table").execute(&transaction, &[]).await?;
        let current: i32 = statement!("schema/version").one(&transaction, &[]).await?.get("version")?;
        if current > newest() {
            return Err(unknown(current));
        }
        if current == target {
            connection::commit(transaction).await?;
            return Ok(steps);
        }
        let up = current < target;
        let version = if up { current + 1 } else { current };
        let migration = usize::try_from(version - 1)
            .ok()
            .and_then(|index| MIGRATIONS.get(index))
            .ok_or_else(|| unknown(current))?;
        let text = if up { migration.up } else { migration.down };
        transaction.batch_execute(text).await.map_err(|source| DatabaseError::Migration {
            version,
            name: migration.name,
            direction: if up { "up" } else { "down" },
            source,
        })?;
        if up {
            statement!("schema/record").execute(&transaction, &[&version, &migration.name]).await?;
        } else {
            statement!("schema/forget").execute(&transaction, &[&version]).await?;
        }
        connection::commit(transaction).await?;
        steps.push(Step { version, name: migration.name.to_owned(), up });
    }
}

/// Tells which steps the database has behind it and which are still to be made.
///
/// # Errors
/// [`DatabaseError::Statement`].
pub async fn status(client: &impl GenericClient) -> Result<Status, DatabaseError> {
    let mut applied = Vec::new();
    if let SchemaState::Versioned(_) = schema_state(client).await? {
        for record in statement!("schema/applied").all(client, &[]).await? {
            applied.push(Applied {
                version: record.get("version")?,
                name: record.get("name")?,
                applied_at: record.get("applied_at")?,
            });
        }
    }
    let current = applied.last().map_or(0, |applied: &Applied| applied.version);
    let pending = (1..)
        .zip(MIGRATIONS)
        .filter(|(version, _)| *version > current)
        .map(|(version, migration)| Step { version, name: migration.name.to_owned(), up: true })
        .collect();
    Ok(Status { applied, pending, oldest: oldest(), newest: newest() })
}

/// Looks at what the database holds.
pub(crate) async fn schema_state(client: &impl GenericClient) -> Result<SchemaState, DatabaseError> {
    let record = statement!("schema/find").one(client, &[]).await?;
    let (ours, tables): (bool, bool) = (record.get("ours")?, record.get("tables")?);
    let version =
        if ours { statement!("schema/version").one(client, &[]).await?.get("version")? } else { 0 };
    Ok(match (version, tables) {
        (0, false) => SchemaState::Empty,
        (0, true) => SchemaState::Foreign,
        (version, _) => SchemaState::Versioned(version),
    })
}

/// Refuses a version that this program does not know.
pub(crate) fn check_known(version: i32) -> Result<(), DatabaseError> {
    if (oldest()..=newest()).contains(&version) { Ok(()) } else { Err(unknown(version)) }
}

fn unknown(found: i32) -> DatabaseError {
    DatabaseError::Schema { found, oldest: oldest(), newest: newest() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_folder_is_a_step() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../sql/migrations");
        let mut found: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        let known: Vec<&str> = MIGRATIONS.iter().map(|migration| migration.name).collect();
        assert_eq!(found, known);
        for (version, name) in (1..).zip(known) {
            assert!(name.starts_with(&format!("{version:04}_")), "{name} is step {version}");
        }
    }
}
