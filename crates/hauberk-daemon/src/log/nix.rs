//! The activities of a Nix daemon.

use std::collections::{HashMap, HashSet};

use hauberk_store::{DrvPath, StorePath};

use super::{LogEvent, LogSink};
use crate::{
    failure::{FailureReason, named_derivation, strip_ansi},
    frame::{Field, Frame},
};

/// Kinds of activities this client tells apart.
mod activity {
    pub(super) const COPY_PATH: u64 = 100;
    pub(super) const FILE_TRANSFER: u64 = 101;
    pub(super) const BUILD: u64 = 105;
    pub(super) const SUBSTITUTE: u64 = 108;
    pub(super) const BUILD_WAITING: u64 = 111;
}

/// Kinds of what activities tell.
mod result {
    pub(super) const BUILD_LOG_LINE: u64 = 101;
    pub(super) const SET_PHASE: u64 = 104;
    pub(super) const PROGRESS: u64 = 105;
    pub(super) const POST_BUILD_LOG_LINE: u64 = 107;
}

/// Activities remembered at a time; a daemon that starts more of them without an end is not believed.
const MOST_ACTIVITIES: usize = 1 << 16;

/// What an activity is about.
#[derive(Debug)]
enum Activity {
    Build(DrvPath),
    Substitute(StorePath),
    Copy(StorePath),
    Transfer(String),
}

/// Turns the frames of one operation into events.
#[derive(Debug, Default)]
pub(crate) struct NixLog {
    activities: HashMap<u64, Activity>,
    failed: HashSet<DrvPath>,
}

impl NixLog {
    /// Reports what `frame` tells; frames that tell nothing are passed over.
    pub(crate) async fn frame(&mut self, frame: Frame, sink: &mut dyn LogSink) {
        match frame {
            Frame::Next(bytes) => {
                self.failure(&bytes, sink).await;
                Self::message(0, bytes, sink).await;
            }
            Frame::StartActivity { id, level, kind, text, fields } => {
                self.start(id, level, kind, text, &fields, sink).await;
            }
            Frame::StopActivity { id } => match self.activities.remove(&id) {
                Some(Activity::Build(derivation)) => {
                    sink.event(LogEvent::BuildStopped { derivation: &derivation }).await;
                }
                Some(Activity::Substitute(path)) => {
                    sink.event(LogEvent::SubstitutionStopped { path: &path }).await;
                }
                Some(Activity::Copy(_) | Activity::Transfer(_)) | None => {}
            },
            Frame::Result { id, kind, fields } => self.result(id, kind, fields, sink).await,
            Frame::Read(_) | Frame::Write(_) | Frame::Last | Frame::Error(_) => {}
        }
    }

    /// Tells whether the failure of `derivation` was reported.
    pub(crate) fn has_failed(&self, derivation: &DrvPath) -> bool {
        self.failed.contains(derivation)
    }

    /// Reports a failed build where the daemon's words tell of one.
    async fn failure(&mut self, bytes: &[u8], sink: &mut dyn LogSink) {
        let text = strip_ansi(&String::from_utf8_lossy(bytes));
        let Some(text) = text.trim().strip_prefix("error: ") else { return };
        if let (Some(reason), Some(derivation)) = (FailureReason::from_message(text), named_derivation(text))
            && self.failed.len() < MOST_ACTIVITIES
            && self.failed.insert(derivation.clone())
        {
            sink.event(LogEvent::BuildFailed { derivation: &derivation, reason: &reason, message: text })
                .await;
        }
    }

    /// Reports the daemon's words.
    async fn message(level: u8, mut bytes: Vec<u8>, sink: &mut dyn LogSink) {
        if !bytes.ends_with(b"\n") {
            bytes.push(b'\n');
        }
        sink.event(LogEvent::Message { level, bytes: &bytes }).await;
    }

    async fn start(
        &mut self,
        id: u64,
        level: u8,
        kind: u64,
        text: Vec<u8>,
        fields: &[Field],
        sink: &mut dyn LogSink,
    ) {
        let field = |index: usize| fields.get(index).and_then(Field::as_text);
        let path = || field(0).and_then(|text| StorePath::parse(text).ok());
        let about = match kind {
            activity::BUILD => field(0).and_then(|text| DrvPath::parse(text).ok()).map(Activity::Build),
            activity::SUBSTITUTE => path().map(Activity::Substitute),
            activity::COPY_PATH => path().map(Activity::Copy),
            activity::FILE_TRANSFER => field(0).map(|url| Activity::Transfer(url.to_owned())),
            _ => None,
        };
        match &about {
            Some(Activity::Build(derivation)) => {
                let machine = field(1).filter(|name| !name.is_empty());
                sink.event(LogEvent::BuildStarted { derivation, machine, log_file: None }).await;
            }
            Some(Activity::Substitute(path)) => {
                sink.event(LogEvent::SubstitutionStarted { path, from: field(1) }).await;
            }
            Some(Activity::Copy(_) | Activity::Transfer(_)) => {}
            None if kind == activity::BUILD_WAITING => {
                let text = strip_ansi(&String::from_utf8_lossy(&text));
                sink.event(LogEvent::Waiting { text: &text }).await;
            }
            None if !text.is_empty() => Self::message(level.max(1), text, sink).await,
            None => {}
        }
        if let Some(about) = about
            && self.activities.len() < MOST_ACTIVITIES
        {
            self.activities.insert(id, about);
        }
    }

    async fn result(&mut self, id: u64, kind: u64, mut fields: Vec<Field>, sink: &mut dyn LogSink) {
        let about = self.activities.get(&id);
        let derivation = match about {
            Some(Activity::Build(derivation)) => Some(derivation),
            Some(Activity::Substitute(_) | Activity::Copy(_) | Activity::Transfer(_)) | None => None,
        };
        match (kind, fields.first_mut()) {
            (result::BUILD_LOG_LINE, Some(Field::Bytes(line))) => {
                line.push(b'\n');
                sink.event(LogEvent::BuildOutput { derivation, bytes: line }).await;
            }
            (result::POST_BUILD_LOG_LINE, Some(Field::Bytes(line))) => {
                line.push(b'\n');
                sink.event(LogEvent::Message { level: 3, bytes: line }).await;
            }
            (result::SET_PHASE, Some(Field::Bytes(name))) => {
                let name = String::from_utf8_lossy(name);
                sink.event(LogEvent::Phase { derivation, name: &name }).await;
            }
            (result::PROGRESS, Some(&mut Field::Number(done))) => {
                let total = fields.get(1).and_then(Field::as_number).filter(|&total| total > 0);
                let (path, url) = match about {
                    Some(Activity::Copy(path)) => (Some(path), None),
                    Some(Activity::Transfer(url)) => (None, Some(url.as_str())),
                    Some(Activity::Build(_) | Activity::Substitute(_)) | None => return,
                };
                sink.event(LogEvent::SubstitutionProgress { path, url, done, total }).await;
            }
            _ => {}
        }
    }
}
