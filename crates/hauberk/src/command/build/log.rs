//! `hauberk build log`.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use clap::Args;
use hauberk_database::pages::{self, Attempt, LogOwner};
use hauberk_database::{AttemptId, BuildId, Database, DatabaseError};
use hauberk_publish::BaseUrl;
use hauberk_publish::client::{FetchError, LogClient};
use hauberk_web::log::{LogDirectory, LogError, LogReader, Step};

use crate::command::DatabaseLocation;
use crate::command::named::find_build;
use crate::exit::Failure;
use crate::output::Harmless;

/// How often a log that grows is looked at, and the attempt behind it.
const GLANCE: Duration = Duration::from_millis(500);
/// How long the rest of a log may take to arrive after its attempt ended.
const PATIENCE: Duration = Duration::from_secs(120);
/// Attempts of a build that are looked through.
const ATTEMPTS: i64 = 1000;
const PIECE: usize = 64 * 1024;

/// Print a build's log
///
/// It is read from --cache where that is given, and else from the publish server of the remote-server that has it. On a terminal,
/// what could do more to it than colours is left out.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The build
    #[arg(value_name = "BUILD")]
    build: String,
    /// Go on while it grows, and with the next attempt, until the build is over
    #[arg(short, long)]
    follow: bool,
    /// The attempt by its number, instead of the one that runs or decided
    #[arg(long, value_name = "NUMBER")]
    attempt: Option<i32>,
    /// The remote-server's cache directory
    #[arg(long, value_name = "DIRECTORY", env = "HAUBERK_CACHE")]
    cache: Option<PathBuf>,
    /// Where the publish server is, if not where the remote-server says
    #[arg(long, value_name = "URL", conflicts_with = "cache")]
    url: Option<BaseUrl>,
}

pub(super) async fn run(options: Options, location: &DatabaseLocation) -> Result<(), Failure> {
    let database = location.connect().await?;
    let build = find_build(&database.client().await?, &options.build).await?;
    let mut printer = Printer::new(&database, options)?;
    let mut last: Option<AttemptId> = None;
    let mut told = false;
    loop {
        let found = patiently(|| pages_log(&database, build)).await?;
        let Some((is_over, newest, attempts)) = found else {
            return Err(Failure::configuration(anyhow!(
                "there is no build {build}; `hauberk build list` shows what there is"
            )));
        };
        let wanted = match printer.options.attempt {
            Some(number) => {
                Some(attempts.iter().find(|one| one.number == number).map(|one| one.id).ok_or_else(|| {
                    Failure::configuration(anyhow!(
                        "build {build} has no attempt {number}; it has {}",
                        attempts.len()
                    ))
                })?)
            }
            None => newest,
        };
        match wanted {
            Some(attempt) if last != Some(attempt) => {
                if last.is_some() {
                    tracing::info!("another attempt begins");
                }
                printer.attempt(attempt).await?;
                last = Some(attempt);
                if !printer.options.follow || printer.options.attempt.is_some() {
                    return Ok(());
                }
                continue;
            }
            Some(_) | None if is_over && last.is_some() => return Ok(()),
            Some(_) => {}
            None if !printer.options.follow || is_over => {
                return Err(Failure::other(anyhow!(
                    "no worker has tried build {build} yet, so there is no log"
                )));
            }
            None if !told => {
                tracing::info!("no worker has build {build} yet; waiting");
                told = true;
            }
            None => {}
        }
        tokio::time::sleep(2 * GLANCE).await;
    }
}

/// Whether a build is over, the attempt whose log stands for it, and all attempts, newest first.
type Logs = (bool, Option<AttemptId>, Vec<Attempt>);

async fn pages_log(database: &Database, build: BuildId) -> Result<Option<Logs>, DatabaseError> {
    let client = database.client().await?;
    let Some(row) = pages::build(&client, build).await? else { return Ok(None) };
    let newest = pages::log_attempt(&client, build).await?.and_then(|(_, attempt)| attempt);
    Ok(Some((row.line.state.is_final(), newest, pages::attempts(&client, build, ATTEMPTS).await?)))
}

/// Asks the database until it answers.
async fn patiently<T, F>(mut ask: impl FnMut() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, DatabaseError>>,
{
    let mut told = false;
    loop {
        match ask().await {
            Err(error) if error.is_transient() => {
                if !told {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the database does not answer; waiting"
                    );
                    told = true;
                }
                tokio::time::sleep(4 * GLANCE).await;
            }
            answer => return Ok(answer?),
        }
    }
}

/// A log that is fetched bit by bit.
struct Follower {
    reader: LogReader<VecDeque<u8>>,
    /// Bytes of its file that have come.
    arrived: u64,
    /// Bytes of its text that are printed already.
    skip: u64,
}

/// How far a log could be fetched.
enum Fetched {
    /// There is none.
    Nothing,
    /// As far as it goes now.
    SoFar,
    /// To its end.
    End,
}

/// Why no more of a log came.
enum FollowError {
    Http(FetchError),
    Log(LogError),
    Print(Failure),
}

/// Prints logs.
struct Printer<'a> {
    database: &'a Database,
    options: Options,
    http: Option<LogClient>,
    harmless: Option<Harmless>,
    /// Bytes of the present log that are printed.
    printed: u64,
}

impl<'a> Printer<'a> {
    fn new(database: &'a Database, options: Options) -> Result<Self, Failure> {
        let http = match &options.cache {
            Some(_) => None,
            None => Some(LogClient::new().map_err(Failure::other)?),
        };
        let harmless = std::io::stdout().is_terminal().then(Harmless::default);
        Ok(Self { database, options, http, harmless, printed: 0 })
    }

    /// Prints the log of an attempt, to its end if it is to be followed.
    async fn attempt(&mut self, id: AttemptId) -> Result<(), Failure> {
        self.printed = 0;
        let owner = self.owner(id).await?;
        if let Some(removed) = owner.attempt.log_expired_at {
            let day = removed.strftime("%F");
            return Err(Failure::other(anyhow!(
                "the log was removed on {day}: logs are kept for a limited time"
            )));
        }
        match self.options.cache.clone() {
            Some(cache) => self.print_file(id, &LogDirectory::new(Some(&cache))).await,
            None => self.print_served(id).await,
        }
    }

    async fn owner(&self, id: AttemptId) -> Result<LogOwner, Failure> {
        let database = self.database;
        let owner = patiently(|| async move { pages::attempt(&database.client().await?, id).await }).await?;
        owner.ok_or_else(|| Failure::other(anyhow!("attempt {id} is gone")))
    }

    /// Tells whether nothing more can come, but for what is under way.
    async fn is_over(&self, id: AttemptId, ended: &mut Option<Instant>) -> Result<bool, Failure> {
        let attempt = self.owner(id).await?.attempt;
        if attempt.log_complete {
            return Ok(true);
        }
        if attempt.ended_at.is_some() {
            let since = *ended.get_or_insert_with(Instant::now);
            if attempt.started_at.is_none() || since.elapsed() > PATIENCE {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn print_file(&mut self, id: AttemptId, logs: &LogDirectory) -> Result<(), Failure> {
        let mut reader: Option<LogReader> = None;
        let mut ended = None;
        loop {
            // What is asked before the file is read holds for all that is found in it.
            let is_over = self.is_over(id, &mut ended).await?;
            if reader.is_none()
                && let Some(path) = self.owner(id).await?.attempt.log_path
            {
                reader = match logs.open(&path) {
                    Ok(file) => Some(LogReader::new(file)),
                    Err(LogError::Missing) => None,
                    Err(error) => {
                        return Err(Failure::other(anyhow::Error::new(error).context("cannot read the log")));
                    }
                };
            }
            if let Some(reader) = &mut reader {
                let mut piece = vec![0; PIECE];
                loop {
                    match reader.read(&mut piece).map_err(Failure::other)? {
                        Step::Text(length) => self.print(&piece[..length])?,
                        Step::CaughtUp => break,
                        Step::End => return Ok(()),
                    }
                }
            }
            if is_over || !self.options.follow {
                return match reader {
                    Some(_) => Ok(()),
                    None => Err(Failure::other(anyhow!("attempt {id} left no log in this directory"))),
                };
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    async fn print_served(&mut self, id: AttemptId) -> Result<(), Failure> {
        let owner = self.owner(id).await?;
        let base = match (&self.options.url, &owner.publish_url) {
            (Some(url), _) => url.clone(),
            (None, Some(url)) => BaseUrl::parse(url).map_err(Failure::configuration)?,
            (None, None) => {
                return Err(Failure::configuration(anyhow!(
                    "the remote-server says no address for logs; name its directory with --cache, or an address with --url"
                )));
            }
        };
        let mut follower = Follower { reader: LogReader::new(VecDeque::new()), arrived: 0, skip: 0 };
        let mut anew = false;
        let mut ended = None;
        loop {
            // What is asked before the log is fetched holds for all that comes.
            let is_over = self.is_over(id, &mut ended).await?;
            match self.fetch(&base, id, &mut follower).await {
                Ok(Fetched::End) => return Ok(()),
                Ok(Fetched::Nothing) if is_over || !self.options.follow => {
                    return Err(Failure::other(anyhow!("{base} has no log of attempt {id}")));
                }
                Ok(Fetched::SoFar) if is_over || !self.options.follow => return Ok(()),
                Ok(Fetched::Nothing | Fetched::SoFar) => {}
                Err(FollowError::Http(error)) if self.options.follow && error.is_transient() => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "the log cannot be had now");
                }
                // A server that lost its power may have begun the end of the file anew.
                Err(FollowError::Log(LogError::Damaged(_))) if !anew => {
                    anew = true;
                    follower =
                        Follower { reader: LogReader::new(VecDeque::new()), arrived: 0, skip: self.printed };
                    continue;
                }
                Err(FollowError::Http(error)) => return Err(Failure::other(error)),
                Err(FollowError::Log(error)) => {
                    return Err(Failure::other(anyhow::Error::new(error).context("cannot read the log")));
                }
                Err(FollowError::Print(failure)) => return Err(failure),
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Fetches what is new of a log and prints it.
    async fn fetch(
        &mut self,
        base: &BaseUrl,
        id: AttemptId,
        follower: &mut Follower,
    ) -> Result<Fetched, FollowError> {
        let (Some(http), Ok(attempt)) = (self.http.clone(), u64::try_from(id.get())) else {
            return Ok(Fetched::Nothing);
        };
        let part = http.attempt(base, attempt, follower.arrived).await.map_err(FollowError::Http)?;
        let Some(mut part) = part else { return Ok(Fetched::Nothing) };
        let mut text = vec![0; PIECE];
        while let Some(piece) = part.next().await.map_err(FollowError::Http)? {
            follower.arrived += piece.len() as u64;
            follower.reader.source_mut().extend(&piece);
            loop {
                match follower.reader.read(&mut text).map_err(FollowError::Log)? {
                    Step::Text(length) => {
                        let skipped = follower.skip.min(length as u64);
                        follower.skip -= skipped;
                        // It is not more than a piece.
                        self.print(&text[skipped as usize..length]).map_err(FollowError::Print)?;
                    }
                    Step::CaughtUp => break,
                    Step::End => return Ok(Fetched::End),
                }
            }
        }
        Ok(Fetched::SoFar)
    }

    fn print(&mut self, text: &[u8]) -> Result<(), Failure> {
        self.printed += text.len() as u64;
        let mut output = std::io::stdout().lock();
        let written = match &mut self.harmless {
            Some(harmless) => output.write_all(&harmless.filter(text)),
            None => output.write_all(text),
        };
        written.and_then(|()| output.flush()).map_err(Failure::other)
    }
}
