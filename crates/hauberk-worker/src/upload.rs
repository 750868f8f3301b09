//! Uploads that the server has asked for, each until it is done, replaced by a later one of the same attempt, or released.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hauberk_protocol::proto;
use hauberk_publish::client::{BaseUrl, BaseUrlError, UploadTarget, Uploader};
use hauberk_store::StorePath;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, info, warn};

use crate::AttemptId;
use crate::builder::Builder;

/// The pause before an upload that was cut is gone on with, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(16);

/// What the server asks to be uploaded.
#[derive(Clone, Debug)]
pub struct UploadOrder {
    /// The attempt whose results these are.
    pub attempt: AttemptId,
    /// Where they go.
    pub target: UploadTarget,
    /// What is wanted.
    pub paths: Vec<StorePath>,
}

/// Why an Upload cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadOrder {
    #[error("{0} is no attempt")]
    Attempt(i64),
    #[error("the server's publish URL cannot be used")]
    Url(#[source] BaseUrlError),
    #[error("`{}` is not a store path", .0.chars().take(255).collect::<String>())]
    Path(String),
}

impl UploadOrder {
    /// Reads an Upload of the server that publishes at `url`.
    pub(crate) fn read(upload: proto::Upload, url: &str) -> Result<Self, BadOrder> {
        let attempt = AttemptId::new(upload.attempt).ok_or(BadOrder::Attempt(upload.attempt))?;
        let base = BaseUrl::parse(url).map_err(BadOrder::Url)?;
        let parse = |path: String| StorePath::parse(&path).map_err(|_| BadOrder::Path(path));
        let paths = upload.store_paths.into_iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Self { attempt, target: UploadTarget { base, place: upload.path, token: upload.token }, paths })
    }
}

impl UploadOrder {
    /// Uploads what is wanted, going on for as long as it may come to something.
    pub async fn carry_out(&self, uploader: &Uploader) {
        let attempt = self.attempt;
        let mut pause = FIRST_PAUSE;
        while let Err(error) = uploader.upload(&self.target, &self.paths).await {
            if !error.is_transient() {
                // The server is in want of it, and asks again if it has use for another try.
                warn!(
                    attempt.id = %attempt, error = &error as &dyn std::error::Error,
                    "the results of attempt {attempt} are not taken"
                );
                return;
            }
            warn!(
                attempt.id = %attempt, error = &error as &dyn std::error::Error,
                "cannot upload the results of attempt {attempt} yet, trying again in {} s", pause.as_secs()
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        info!(attempt.id = %attempt, "uploaded the results of attempt {attempt}");
    }
}

/// The uploads under way.
#[derive(Debug, Default)]
pub(crate) struct Uploads(BTreeMap<AttemptId, AbortOnDropHandle<()>>);

impl Uploads {
    /// Begins an upload, in the place of an earlier one of the same attempt.
    pub(crate) fn begin(&mut self, order: UploadOrder, builder: &Arc<dyn Builder>) {
        let (attempt, builder) = (order.attempt, Arc::clone(builder));
        info!(
            attempt.id = %attempt, paths = order.paths.len(),
            "the server has {} paths of attempt {attempt} uploaded", order.paths.len()
        );
        let uploading = async move { builder.upload(&order).await }.in_current_span();
        self.0.insert(attempt, AbortOnDropHandle::new(tokio::spawn(uploading)));
    }

    /// Ends what is not wanted any more.
    pub(crate) fn end(&mut self, attempts: &[AttemptId]) {
        for attempt in attempts {
            self.0.remove(attempt);
        }
    }
}
