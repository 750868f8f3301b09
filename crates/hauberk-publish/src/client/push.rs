//! Pushing derivations and sources to a server that has no access to the store they are in.

use std::{collections::HashSet, io, time::Duration};

use bytes::Bytes;
use hauberk_store::StorePath;
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, sleep},
};
use tracing::{debug, info};

use super::{
    config::ClientConfig,
    error::ClientError,
    pieces::{MOST_TURNS, PieceSender, read_pieces},
    upload::{UploadError, UploadTarget},
};
use crate::{
    inbox::PIECE,
    push::{ParcelName, PushedItem, pack},
};

/// Most bytes of a question.
const QUESTION: usize = PIECE * 3 / 4;

/// Items of a parcel at most, and bytes of their nars after which it is full.
const PARCEL_ITEMS: usize = 2048;
const PARCEL_BYTES: u64 = 16 << 20;

/// An item with a nar of so many bytes is a parcel by itself, so that the rest of what was cut has the same name.
const ALONE: u64 = 4 << 20;

/// Time for the answer to the last piece of a parcel, all of which is checked and made durable before.
const LAST_PATIENCE: Duration = Duration::from_secs(15 * 60);

/// The pause after the first try that failed; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Items.
    pub items: usize,
    /// Bytes of their nars.
    pub bytes: u64,
}

/// Pushes derivations and sources. Clones share connections.
#[derive(Clone)]
pub struct Pusher {
    pieces: PieceSender,
    patience: Duration,
}

impl std::fmt::Debug for Pusher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pusher").field("patience", &self.patience).finish_non_exhaustive()
    }
}

impl Pusher {
    /// Pushes as `config` says, and tries for `patience` to reach a server that is away or breaks off.
    ///
    /// # Errors
    /// A system that cannot give what connections need.
    pub fn new(config: ClientConfig, patience: Duration) -> Result<Self, ClientError> {
        Ok(Self { pieces: PieceSender::new(config)?, patience })
    }

    /// Gives one that shares connections with this one and tries for `patience` at most.
    #[must_use]
    pub fn at_most(&self, patience: Duration) -> Self {
        Self { pieces: self.pieces.clone(), patience: self.patience.min(patience) }
    }

    /// Asks which of `paths` a server has no copy of its own of, with all that they refer to.
    ///
    /// # Errors
    /// [`UploadError`], when it lasts longer than the patience or does not pass.
    pub async fn missing(
        &self,
        target: &UploadTarget,
        paths: &[StorePath],
    ) -> Result<HashSet<StorePath>, UploadError> {
        self.ask(target, "missing", paths).await
    }

    /// Asks which of `paths` a server can give to workers.
    ///
    /// # Errors
    /// As [`Self::missing`].
    pub async fn available(
        &self,
        target: &UploadTarget,
        paths: &[StorePath],
    ) -> Result<HashSet<StorePath>, UploadError> {
        self.ask(target, "available", paths).await
    }

    /// Asks about paths; gives those to which the answer is yes.
    async fn ask(
        &self,
        target: &UploadTarget,
        question: &str,
        paths: &[StorePath],
    ) -> Result<HashSet<StorePath>, UploadError> {
        let url = target.place(question)?;
        let mut yes = HashSet::new();
        let mut rest = paths;
        while !rest.is_empty() {
            let (mut text, mut count) = (String::new(), 0);
            for path in rest {
                if text.len() + path.base_name().len() >= QUESTION {
                    break;
                }
                text.push_str(path.base_name());
                text.push('\n');
                count += 1;
            }
            let (batch, later) = rest.split_at(count);
            rest = later;
            let mut patience = Patience::new(self.patience);
            let answer = loop {
                // A line of digits.
                match self.pieces.ask(target, &url, text.clone(), count + 1).await {
                    Ok(answer) => break answer,
                    Err(error) => patience.wait(error).await?,
                }
            };
            let digits = answer.trim_ascii_end();
            if digits.len() != count || !digits.iter().all(|digit| matches!(digit, b'0' | b'1')) {
                let text = "its answer is not one to the question".to_owned();
                return Err(UploadError::Refused { url: url.into(), status: 200, text });
            }
            yes.extend(
                batch.iter().zip(digits).filter(|(_, digit)| **digit == b'1').map(|(path, _)| path.clone()),
            );
        }
        Ok(yes)
    }

    /// Sends `items`, each after all it refers to. When it returns, the server has them on its disk, and serves them.
    ///
    /// # Errors
    /// As [`Self::missing`]; what was taken until then stays.
    pub async fn send(&self, target: &UploadTarget, items: Vec<PushedItem>) -> Result<Sent, UploadError> {
        let sent = Sent { items: items.len(), bytes: items.iter().map(|item| item.info.nar_size).sum() };
        for parcel in parcels(items) {
            let mut patience = Patience::new(self.patience);
            let mut first = true;
            loop {
                let tried = self.send_parcel(target, &parcel, &mut patience, first).await;
                first = false;
                match tried {
                    Ok(()) => break,
                    Err(error) => patience.wait(error).await?,
                }
                // It may have taken it, and could not say so.
                let paths: Vec<StorePath> = parcel.iter().map(|item| item.info.path.clone()).collect();
                if self.missing(target, &paths).await?.is_empty() {
                    break;
                }
            }
        }
        Ok(sent)
    }

    /// Sends a parcel, or what is left of it to be sent.
    async fn send_parcel(
        &self,
        target: &UploadTarget,
        items: &[PushedItem],
        patience: &mut Patience,
        first: bool,
    ) -> Result<(), UploadError> {
        let name = ParcelName::of(items.iter().map(|item| &item.info.path));
        let url = target.place(&format!("parcel/{}", name.as_str()))?;
        for _ in 0..MOST_TURNS {
            let here = self.pieces.offset(target, &url).await?;
            if first && here.at > 0 {
                info!("going on with a parcel of {} paths after {} bytes", items.len(), here.at);
            }
            match self.rest(target, &url, items, here.at, patience).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                // What somebody else had begun may not be what we pack; the server has forgotten it now.
                Err(UploadError::Refused { status: 422, text, .. }) if here.at > 0 => {
                    debug!("the rest of a parcel is refused, and it begins anew: {text}");
                }
                Err(error) => return Err(error),
            }
        }
        Err(UploadError::Late { url: url.into() })
    }

    /// Sends a parcel from `at` on. False when the server has another idea of what it has.
    async fn rest(
        &self,
        target: &UploadTarget,
        url: &reqwest::Url,
        items: &[PushedItem],
        mut at: u64,
        patience: &mut Patience,
    ) -> Result<bool, UploadError> {
        let (sender, mut pieces) = mpsc::channel::<Bytes>(1);
        let (owned, begin) = (items.to_vec(), at);
        let reading = spawn_blocking(move || read_pieces(pack(owned)?, begin, &sender));
        let last_sender = self.pieces.with_patience(LAST_PATIENCE);
        while let Some(piece) = pieces.recv().await {
            let last = piece.len() < PIECE;
            let length = piece.len() as u64;
            let sender = if last { &last_sender } else { &self.pieces };
            if !sender.put(target, url, at, piece, last).await? {
                return Ok(false);
            }
            patience.renew();
            at += length;
            if last {
                return Ok(true);
            }
        }
        let read = reading.await.map_err(io::Error::other).flatten();
        match (read, items.first()) {
            (Err(source), Some(item)) => Err(UploadError::Read { path: item.info.path.clone(), source }),
            (_, _) => Ok(false),
        }
    }
}

/// Waits between tries, as long as there is hope.
struct Patience {
    allowed: Duration,
    until: Instant,
    pause: Duration,
}

impl Patience {
    fn new(allowed: Duration) -> Self {
        Self { allowed, until: Instant::now() + allowed, pause: FIRST_PAUSE }
    }

    /// Begins anew after something worked.
    fn renew(&mut self) {
        *self = Self::new(self.allowed);
    }

    /// Waits for a while after a failure that may pass; gives back one that does not, or that has lasted for too long.
    async fn wait(&mut self, error: UploadError) -> Result<(), UploadError> {
        if !error.is_transient() || Instant::now() + self.pause > self.until {
            return Err(error);
        }
        debug!(error = &error as &dyn std::error::Error, "a push is tried again");
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// Divides items, in their order. What is large goes alone, so that what was cut is gone on with whatever else is missing by then.
fn parcels(items: Vec<PushedItem>) -> Vec<Vec<PushedItem>> {
    let mut parcels: Vec<Vec<PushedItem>> = Vec::new();
    let (mut open, mut bytes) = (Vec::new(), 0);
    for item in items {
        let size = item.info.nar_size;
        let full = open.len() >= PARCEL_ITEMS || bytes >= PARCEL_BYTES;
        if (full || size >= ALONE) && !open.is_empty() {
            parcels.push(std::mem::take(&mut open));
            bytes = 0;
        }
        if size >= ALONE {
            parcels.push(vec![item]);
        } else {
            bytes += size;
            open.push(item);
        }
    }
    if !open.is_empty() {
        parcels.push(open);
    }
    parcels
}
