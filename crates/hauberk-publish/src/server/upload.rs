//! Where content is taken: uploads into the inbox.

use std::{error::Error, sync::Arc};

use hauberk_store::narinfo;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
};
use tracing::{error, warn};

use super::{
    reply::{self, Reply},
    request::{Field, Method, Request},
    status::Status,
};
use crate::inbox::{Inbox, Offset, PIECE, Part, Refusal, Slot, UploadName};

/// Pieces that are received at once, each of which is in memory until it is written; more wait.
const PIECES: usize = 32;

/// Takes uploads.
pub(super) struct UploadDesk {
    inbox: Option<Inbox>,
    room: Arc<Semaphore>,
}

/// What the head of a request says of the piece that comes with it.
pub(super) struct PieceHead {
    /// Where it begins.
    pub(super) at: u64,
    /// Whether it is the last one.
    pub(super) last: bool,
    /// Bytes it has.
    pub(super) length: usize,
}

impl PieceHead {
    /// Reads the head of a request whose content may have `limit` bytes.
    pub(super) fn of(request: &Request, limit: usize) -> Result<Self, Reply> {
        let at = request.values(Field::UploadOffset).next().map_or(Ok(0), |value| value.trim().parse());
        let at = at.map_err(|_| reply::refusal(Status::BadRequest, "this is no offset"))?;
        let last = match request.values(Field::UploadComplete).next().map(str::trim) {
            Some("?1") => true,
            Some("?0") | None => false,
            Some(_) => return Err(reply::refusal(Status::BadRequest, "an upload is complete by ?1 or ?0")),
        };
        let length = request.content.ok_or_else(|| {
            reply::refusal(Status::LengthRequired, "the length of the content must be told beforehand")
        })?;
        let length = usize::try_from(length).ok().filter(|length| *length <= limit).ok_or_else(|| {
            reply::refusal(Status::ContentTooLarge, format!("a piece may have {limit} bytes"))
        })?;
        Ok(Self { at, last, length })
    }
}

/// A piece of an upload that may come.
pub(super) struct Piece {
    slot: Arc<Slot>,
    name: UploadName,
    at: u64,
    length: usize,
    last: bool,
    _room: OwnedSemaphorePermit,
}

impl UploadDesk {
    /// Takes uploads into `inbox`.
    pub(super) fn new(inbox: Option<Inbox>) -> Self {
        Self { inbox, room: Arc::new(Semaphore::new(PIECES)) }
    }

    /// Tells how much is here.
    pub(super) fn offset(&self, request: &Request, name: &UploadName) -> Reply {
        match self.slot(request, name) {
            Ok(slot) => {
                slot.offset(name).map_or_else(|refusal| refuse(&refusal), |offset| told(Status::Ok, offset))
            }
            Err(reply) => reply,
        }
    }

    /// Decides by its head whether a request's content is taken.
    pub(super) async fn admit(&self, request: &Request, name: UploadName) -> Result<Piece, Reply> {
        if request.method != Method::Patch {
            return Err(reply::method_not_allowed());
        }
        let slot = self.slot(request, &name)?;
        let limit = match name.part {
            Part::NarInfo => narinfo::MAX_SIZE,
            Part::Nar => PIECE,
        };
        let PieceHead { at, last, length } = PieceHead::of(request, limit)?;
        // Before the content comes: what cannot join need not.
        let here = slot.offset(&name).map_err(|refusal| refuse(&refusal))?;
        if here.complete || here.at != at {
            return Err(told(Status::Conflict, here));
        }
        let room = Arc::clone(&self.room).acquire_owned().await;
        let room = room.map_err(|_| reply::refusal(Status::Unavailable, "the server is ending"))?;
        Ok(Piece { slot, name, at, length, last, _room: room })
    }

    /// Finds the reception that a request's token is for.
    fn slot(&self, request: &Request, name: &UploadName) -> Result<Arc<Slot>, Reply> {
        let found = self.inbox.as_ref().zip(request.bearer());
        let found = found.and_then(|(inbox, token)| inbox.find(name.number, token));
        // Whether there is one with another token is nobody's business.
        found.ok_or_else(|| reply::refusal(Status::Forbidden, "no upload is waited for here with this token"))
    }
}

impl Piece {
    /// Bytes it has.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Writes it down.
    pub(super) async fn write(self, content: Vec<u8>) -> Reply {
        let Self { slot, name, at, last, _room, .. } = self;
        let span = tracing::Span::current();
        let written = spawn_blocking(move || span.in_scope(|| slot.append(&name, at, &content, last))).await;
        match written {
            Ok(Ok(offset)) => told(Status::NoContent, offset),
            Ok(Err(refusal)) => refuse(&refusal),
            Err(_) => reply::refusal(Status::Unavailable, "the server is ending"),
        }
    }
}

fn told(status: Status, offset: Offset) -> Reply {
    reply::offset(status, offset)
}

fn refuse(refusal: &Refusal) -> Reply {
    let status = match refusal {
        Refusal::NotAsked => Status::NotFound,
        Refusal::TooSoon | Refusal::Elsewhere(_) => Status::Conflict,
        Refusal::TooLarge { .. } => Status::ContentTooLarge,
        Refusal::Wrong(_) => Status::UnprocessableContent,
        Refusal::Io(_) => Status::Unavailable,
    };
    match refusal {
        Refusal::Elsewhere(offset) => return told(status, *offset),
        Refusal::Io(_) => error!(error = refusal as &dyn Error, "cannot keep an upload"),
        Refusal::Wrong(_) | Refusal::TooLarge { .. } => {
            warn!(error = refusal as &dyn Error, "an upload is refused");
        }
        Refusal::NotAsked | Refusal::TooSoon => {}
    }
    reply::refusal(status, refusal.to_string())
}
