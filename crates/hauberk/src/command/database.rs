//! `hauberk database`: the schema and its versions.

use anyhow::anyhow;
use clap::{Args, Subcommand};
use hauberk_database::upkeep::{self, Finding, Rule};
use hauberk_database::{Database, audit, migrations};
use serde_json::json;

use crate::command::{DatabaseLocation, persist, print, user};
use crate::exit::Failure;

/// Make the farm's tables, bring them up to date, tell their version, or check their rows
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Bring the schema to the newest version this program knows, or to another
    Migrate {
        #[command(flatten)]
        location: DatabaseLocation,
        /// The version to go to, up or down; 0 drops all tables
        #[arg(long, value_name = "VERSION")]
        to: Option<i32>,
    },
    /// Check that builds, dependencies and attempts agree; changes nothing unless told to
    Verify {
        #[command(flatten)]
        location: DatabaseLocation,
        /// Mend what is wrong
        #[arg(long)]
        repair: bool,
    },
    /// Print the versions that are applied, and those that are not
    Status {
        #[command(flatten)]
        location: DatabaseLocation,
    },
}

/// Does what the command says and prints each step.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    match options.action {
        Action::Migrate { location, to } => {
            let database = Database::open(&location.parse()?, 1).await?;
            let steps = migrations::migrate(&mut database.client().await?, to).await?;
            for step in &steps {
                let direction = if step.up { "up" } else { "down" };
                print(format_args!("{direction} {} {}", step.version, step.name))?;
            }
            if steps.is_empty() {
                print(format_args!("nothing to do"))?;
            }
        }
        Action::Verify { location, repair } => {
            let database = Database::connect(&location.parse()?, 1).await?;
            let findings = upkeep::verify(&database.client().await?).await?;
            if findings.is_empty() {
                return print(format_args!("everything agrees"));
            }
            let wrong = |findings: &[Finding]| {
                print(format_args!("{:>8}  {:60}  FIRST", "ROWS", "WRONG"))?;
                for Finding { rule, rows } in findings {
                    let first: Vec<String> = rows.iter().take(5).map(i64::to_string).collect();
                    print(format_args!("{:>8}  {rule:60}  {}", rows.len(), first.join(", ")))?;
                }
                Ok::<_, Failure>(())
            };
            wrong(&findings)?;
            if !repair {
                return Err(Failure::other(anyhow!("the rows do not agree; `--repair` mends them")));
            }
            // What one repair changes may matter to the next rule.
            for rule in Rule::ALL {
                let findings = upkeep::verify(&database.client().await?).await?;
                let Some(finding) = findings.iter().find(|finding| finding.rule == *rule) else { continue };
                persist(|| async { upkeep::repair(&mut database.client().await?, finding).await }).await?;
                if *rule != Rule::Once {
                    let detail = json!({ "rows": finding.rows });
                    let client = database.client().await?;
                    audit::record(&client, &user(), "database.repair", &rule.to_string(), Some(&detail))
                        .await?;
                }
            }
            let left = upkeep::verify(&database.client().await?).await?;
            if left.is_empty() {
                return print(format_args!("mended"));
            }
            print(format_args!("still wrong:"))?;
            wrong(&left)?;
            return Err(Failure::other(anyhow!("some rows could not be mended")));
        }
        Action::Status { location } => {
            let database = Database::open(&location.parse()?, 1).await?;
            let status = migrations::status(&database.client().await?).await?;
            for applied in &status.applied {
                print(format_args!("applied {} {} {}", applied.version, applied.name, applied.applied_at))?;
            }
            for pending in &status.pending {
                print(format_args!("pending {} {}", pending.version, pending.name))?;
            }
            print(format_args!(
                "version {}; this program knows {} to {}",
                status.version(),
                status.oldest,
                status.newest
            ))?;
        }
    }
    Ok(())
}
