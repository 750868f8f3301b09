//! A log as a stream of events, while it grows.

use std::time::Duration;

use axum::response::sse::Event;
use futures::Stream;
use hauberk_database::AttemptId;
use hauberk_database::pages;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::{LogError, LogReader, Renderer, Step};
use crate::app::App;

/// How often the file is looked at while it does not grow.
const GLANCE: Duration = Duration::from_millis(400);
/// How often the attempt is looked at while the file does not grow.
const ASK: Duration = Duration::from_secs(5);
/// How long the rest of a log may take to arrive after its attempt ended.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of text in one event.
const PIECE: usize = 32 * 1024;

/// Some text of a log, for the page's script.
#[derive(Debug, Serialize)]
struct Piece<'a> {
    html: &'a str,
}

/// The last event of a log, for the page's script.
#[derive(Debug, Serialize)]
struct Ending<'a> {
    message: &'a str,
}

/// Follows the log of an attempt from a place in its text. The stream ends when the log does.
pub(crate) fn follow(app: App, attempt: AttemptId, offset: u64) -> impl Stream<Item = Event> + Send {
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        let stop = app.stop.clone();
        let follower = Follower { app, attempt, sender };
        tokio::select! {
            () = stop.cancelled() => {}
            () = follower.sender.closed() => {}
            () = follower.run(offset) => {}
        }
    });
    ReceiverStream::new(receiver)
}

struct Follower {
    app: App,
    attempt: AttemptId,
    sender: mpsc::Sender<Event>,
}

/// Whether more text can come.
enum Outlook {
    /// The attempt runs, or its log is under way.
    Growing,
    /// The log is complete: what is in the file is all.
    Complete,
    /// The attempt ended, and its log is not complete.
    Orphaned,
    /// The row is gone.
    Gone,
}

impl Follower {
    async fn run(&self, offset: u64) {
        let message = match self.send_text(offset).await {
            Ok(message) => message.to_owned(),
            Err(error) => error.to_string(),
        };
        let ending = Event::default().event("end").json_data(Ending { message: &message });
        if let Ok(event) = ending {
            // Nobody listens any more when it cannot be sent.
            let _ = self.sender.send(event).await;
        }
    }

    /// Sends text until the log ends, and gives the words for its end.
    async fn send_text(&self, offset: u64) -> Result<&'static str, LogError> {
        let mut reader: Option<LogReader> = None;
        let mut renderer = Renderer::default();
        let mut grown_at = Instant::now();
        let mut asked_at: Option<Instant> = None;
        let mut changes = self.app.changes.clone();
        let mut outlook = Outlook::Growing;
        loop {
            if reader.is_none() {
                reader = self.open(offset).await?;
            }
            if let Some(taken) = reader.take() {
                let (taken, text, step) = read(taken).await?;
                if !text.is_empty() {
                    grown_at = Instant::now();
                    let mut html = String::new();
                    renderer.render(&text, &mut html);
                    self.send(&html, taken.offset() - renderer.held()).await;
                }
                if step == Step::End {
                    let mut html = String::new();
                    renderer.finish(&mut html);
                    self.send(&html, taken.offset()).await;
                    return Ok("end of the log");
                }
                let more = matches!(step, Step::Text(_));
                reader = Some(taken);
                if more {
                    continue;
                }
            }
            match outlook {
                Outlook::Complete => return Ok("end of the log"),
                Outlook::Gone => return Ok("the attempt is gone"),
                Outlook::Orphaned if grown_at.elapsed() > PATIENCE => {
                    return Ok("the attempt ended, and the rest of its log did not arrive");
                }
                Outlook::Orphaned | Outlook::Growing => {}
            }
            let changed = tokio::select! {
                () = tokio::time::sleep(GLANCE) => false,
                true = changes.next() => true,
            };
            let is_due = asked_at.is_none_or(|at| at.elapsed() > ASK || (changed && at.elapsed() > GLANCE));
            if is_due {
                asked_at = Some(Instant::now());
                // While the database is away the file is followed all the same.
                if let Some(now) = self.outlook().await {
                    outlook = now;
                }
            }
        }
    }

    async fn open(&self, offset: u64) -> Result<Option<LogReader>, LogError> {
        let Some(path) = self.path().await else { return Ok(None) };
        let logs = self.app.logs.clone();
        blocking(move || {
            let file = match logs.open(&path) {
                Ok(file) => file,
                Err(LogError::Missing) => return Ok(None),
                Err(error) => return Err(error),
            };
            let mut reader = LogReader::new(file);
            reader.skip_to(offset)?;
            Ok(Some(reader))
        })
        .await
    }

    async fn path(&self) -> Option<String> {
        let client = self.app.database.client().await.ok()?;
        pages::attempt(&client, self.attempt).await.ok()??.attempt.log_path
    }

    async fn outlook(&self) -> Option<Outlook> {
        let client = self.app.database.client().await.ok()?;
        let owner = pages::attempt(&client, self.attempt).await.ok()?;
        Some(match owner {
            None => Outlook::Gone,
            Some(owner) if owner.attempt.log_complete => Outlook::Complete,
            Some(owner) if owner.attempt.ended_at.is_some() => Outlook::Orphaned,
            Some(_) => Outlook::Growing,
        })
    }

    async fn send(&self, html: &str, offset: u64) {
        if html.is_empty() {
            return;
        }
        let event = Event::default().id(offset.to_string()).json_data(Piece { html });
        if let Ok(event) = event {
            // The task ends when nobody listens any more.
            let _ = self.sender.send(event).await;
        }
    }
}

async fn read(mut reader: LogReader) -> Result<(LogReader, Vec<u8>, Step), LogError> {
    blocking(move || {
        let mut text = vec![0; PIECE];
        let step = reader.read(&mut text)?;
        text.truncate(match step {
            Step::Text(length) => length,
            Step::CaughtUp | Step::End => 0,
        });
        Ok((reader, text, step))
    })
    .await
}

/// Runs file work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    let span = tracing::Span::current();
    match tokio::task::spawn_blocking(move || span.in_scope(work)).await {
        Ok(result) => result,
        Err(error) => Err(LogError::Read(std::io::Error::other(error))),
    }
}
