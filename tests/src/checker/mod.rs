//! The checker: reads a farm's tables, logs and cache, and proves that nothing was lost, doubled or forgotten.
//!
//! It has three degrees. [`Checker::always`] holds in every snapshot of the tables, whatever runs, stands still or is dead.
//! [`Checker::attended`] holds whenever a server has run for longer than a lease. [`Checker::settled`] holds when there is nothing
//! left to do, and reads every log and every output as well.

mod cache;
mod logs;
mod rules;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use hauberk_store::signature::nix::PublicKey;
use tokio_postgres::{IsolationLevel, Transaction};

use crate::{simulated::LogText, tables::Tables};
use rules::{Degree, RULES};

/// Findings of one rule that are shown; the others are only counted.
const SHOWN: usize = 5;

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The rule that is broken.
    pub rule: &'static str,
    /// What breaks it.
    pub what: String,
}

/// Everything that must not be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// Gives the names of the broken rules, each once.
    pub fn rules(&self) -> Vec<&'static str> {
        let mut rules: Vec<_> = self.0.iter().map(|finding| finding.rule).collect();
        rules.sort_unstable();
        rules.dedup();
        rules
    }

    /// Checks that there are none.
    ///
    /// # Errors
    /// There are; the message shows some of each rule.
    pub fn require_none(&self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        bail!("the checker finds what must not be:\n{self}")
    }

    fn push(&mut self, rule: &'static str, what: impl Into<String>) {
        self.0.push(Finding { rule, what: what.into() });
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut by_rule: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for finding in &self.0 {
            by_rule.entry(finding.rule).or_default().push(&finding.what);
        }
        for (rule, found) in by_rule {
            writeln!(formatter, "{rule}: {}", found.len())?;
            for what in found.iter().take(SHOWN) {
                writeln!(formatter, "    {what}")?;
            }
        }
        Ok(())
    }
}

/// Checks one farm, again and again: logs and outputs that were found right are not read a second time.
#[derive(Debug)]
pub struct Checker {
    cache: PathBuf,
    server_key: PublicKey,
    /// Another server with a cache and a key of its own: its name, and those.
    other: Option<(String, PathBuf, PublicKey)>,
    lease: Duration,
    log_text: Option<fn(i64) -> LogText>,
    clock_jumps: bool,
    read_logs: HashSet<i64>,
    read_outputs: HashSet<String>,
}

impl Checker {
    /// Makes a checker for the farm whose server has this cache directory, public signing key and lease. With `log_text`, each
    /// attempt's log must be what that gives.
    pub fn new(
        cache: PathBuf,
        server_key: PublicKey,
        lease: Duration,
        log_text: Option<fn(i64) -> LogText>,
    ) -> Self {
        Self {
            cache,
            server_key,
            other: None,
            lease,
            log_text,
            clock_jumps: false,
            read_logs: HashSet::new(),
            read_outputs: HashSet::new(),
        }
    }

    /// Gives a checker for the same farm that has read nothing yet.
    pub fn anew(&self) -> Self {
        let mut new = Self::new(self.cache.clone(), self.server_key.clone(), self.lease, self.log_text);
        new.other.clone_from(&self.other);
        if self.clock_jumps { new.with_jumping_clock() } else { new }
    }

    /// Knows of another server, which has a cache directory and a signing key of its own.
    #[must_use]
    pub fn with_other_server(mut self, name: &str, cache: PathBuf, key: PublicKey) -> Self {
        self.other = Some((name.to_owned(), cache, key));
        self
    }

    /// The cache directory of the server of this name, and its key.
    fn place(&self, server: Option<&str>) -> (&Path, &PublicKey) {
        match &self.other {
            Some((name, cache, key)) if server == Some(name.as_str()) => (cache, key),
            _ => (&self.cache, &self.server_key),
        }
    }

    /// Leaves out the rules that compare times, for a farm whose database's clock jumps.
    #[must_use]
    pub fn with_jumping_clock(mut self) -> Self {
        self.clock_jumps = true;
        self
    }

    /// Finds what must never be.
    ///
    /// # Errors
    /// The tables cannot be read.
    pub async fn always(&self, tables: &Tables) -> Result<Findings> {
        self.rules(tables, Degree::Always).await
    }

    /// Finds what must not be while a server runs, and has run for longer than a lease.
    ///
    /// # Errors
    /// The tables cannot be read.
    pub async fn attended(&self, tables: &Tables) -> Result<Findings> {
        self.rules(tables, Degree::Attended).await
    }

    /// Finds what must not be when there is nothing left to do.
    ///
    /// # Errors
    /// The tables, logs or outputs cannot be read.
    pub async fn settled(&mut self, tables: &Tables) -> Result<Findings> {
        let mut findings = self.rules(tables, Degree::Settled).await?;
        self.check_logs(tables, &mut findings).await?;
        self.check_outputs(tables, &mut findings).await?;
        Ok(findings)
    }

    async fn rules(&self, tables: &Tables, degree: Degree) -> Result<Findings> {
        let mut client = tables.connect().await?;
        // One snapshot for all rules, whatever happens meanwhile.
        let snapshot = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await?;
        self.rules_in(&snapshot, degree).await
    }

    /// Finds what the tables must not show when there is nothing left to do, as one transaction sees them.
    ///
    /// # Errors
    /// The tables cannot be read.
    pub async fn settled_in(&self, transaction: &Transaction<'_>) -> Result<Findings> {
        self.rules_in(transaction, Degree::Settled).await
    }

    async fn rules_in(&self, transaction: &Transaction<'_>, degree: Degree) -> Result<Findings> {
        let lease = self.lease.as_secs_f64();
        let mut findings = Findings::default();
        for rule in
            RULES.iter().filter(|rule| rule.degree <= degree && !(self.clock_jumps && rule.goes_by_clock))
        {
            let rows = if rule.takes_lease {
                transaction.query(rule.query, &[&lease]).await
            } else {
                transaction.query(rule.query, &[]).await
            };
            for row in rows.map_err(|error| anyhow::anyhow!("checking {}: {error:?}", rule.name))? {
                findings.push(rule.name, row.get::<_, String>(0));
            }
        }
        Ok(findings)
    }
}
