//! Where pushes are taken.

use std::{error::Error, sync::Arc};

use bytes::Bytes;
use hauberk_store::StorePath;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
};
use tracing::{error, warn};

use super::{
    reply::{self, Reply},
    request::{Method, Request},
    route::PushPart,
    status::Status,
    store_source::StoreSource,
    upload::PieceHead,
};
use crate::{
    inbox::{Offset, PIECE},
    push::{ParcelName, PushDoor, PushRefusal, Question},
};

/// Pieces and questions that are received at once, each of which is in memory until it is dealt with; more wait.
const ROOM: usize = 8;

/// Takes pushes.
pub(super) struct PushDesk {
    door: Option<PushDoor>,
    store: Option<StoreSource>,
    room: Arc<Semaphore>,
}

/// Something of a push that may come.
pub(super) struct Pushed {
    door: PushDoor,
    store: Option<StoreSource>,
    evaluation: u64,
    what: What,
    length: usize,
    _room: OwnedSemaphorePermit,
}

enum What {
    Question(Question),
    Piece { name: ParcelName, at: u64, last: bool },
}

impl PushDesk {
    /// Takes pushes through `door`; what is asked to be available may be in `store`, too.
    pub(super) fn new(door: Option<PushDoor>, store: Option<StoreSource>) -> Self {
        Self { door, store, room: Arc::new(Semaphore::new(ROOM)) }
    }

    /// Tells how much of a parcel is here.
    pub(super) async fn offset(&self, request: &Request, evaluation: u64, part: &PushPart) -> Reply {
        match (self.door(request, evaluation).await, part) {
            (Ok(door), PushPart::Parcel(name)) => told(Status::Ok, door.offset(name)),
            (Ok(_), PushPart::Question(_)) => reply::method_not_allowed(),
            (Err(reply), _) => reply,
        }
    }

    /// Decides by its head whether a request's content is taken.
    pub(super) async fn admit(
        &self,
        request: &Request,
        evaluation: u64,
        part: PushPart,
    ) -> Result<Pushed, Reply> {
        let wanted = match part {
            PushPart::Question(_) => Method::Post,
            PushPart::Parcel(_) => Method::Patch,
        };
        if request.method != wanted {
            return Err(reply::method_not_allowed());
        }
        let door = self.door(request, evaluation).await?;
        let PieceHead { at, last, length } = PieceHead::of(request, PIECE)?;
        let what = match part {
            PushPart::Question(question) => What::Question(question),
            PushPart::Parcel(name) => {
                // Before the content comes: what cannot join need not.
                let here = door.offset(&name);
                if here.at != at {
                    return Err(told(Status::Conflict, here));
                }
                What::Piece { name, at, last }
            }
        };
        let room = Arc::clone(&self.room).acquire_owned().await.map_err(|_| ending())?;
        Ok(Pushed { door, store: self.store.clone(), evaluation, what, length, _room: room })
    }

    /// Finds where somebody with a token for this evaluation may push.
    async fn door(&self, request: &Request, evaluation: u64) -> Result<PushDoor, Reply> {
        let forbidden = || reply::refusal(Status::Forbidden, "nothing is pushed here with this token");
        let (door, token) = self.door.as_ref().zip(request.bearer()).ok_or_else(forbidden)?;
        match door.admits(evaluation, token).await {
            Ok(true) => Ok(door.clone()),
            Ok(false) => Err(forbidden()),
            Err(error) => {
                warn!(error = &*error as &dyn Error, "cannot look up who may push");
                Err(reply::refusal(Status::Unavailable, "it cannot be looked up who may push"))
            }
        }
    }
}

impl Pushed {
    /// Bytes it has.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Deals with it.
    pub(super) async fn take(self, content: Vec<u8>) -> Reply {
        let Self { door, store, evaluation, what, _room, .. } = self;
        match what {
            What::Question(question) => answer(&door, store, question, &content).await,
            What::Piece { name, at, last } => {
                let span = tracing::Span::current();
                let append = move || span.in_scope(|| door.append(evaluation, &name, at, &content, last));
                match spawn_blocking(append).await {
                    Ok(Ok(offset)) => told(Status::NoContent, offset),
                    Ok(Err(refusal)) => refuse(&refusal),
                    Err(_) => ending(),
                }
            }
        }
    }
}

/// Answers with a digit for each path of a list.
async fn answer(door: &PushDoor, store: Option<StoreSource>, question: Question, list: &[u8]) -> Reply {
    let directory = door.store_directory().clone();
    let text = String::from_utf8_lossy(list);
    let paths = text.lines().map(|line| StorePath::from_base_name(&directory, line));
    let Ok(paths) = paths.collect::<Result<Vec<StorePath>, _>>() else {
        return reply::refusal(Status::BadRequest, "give the base name of a store path on each line");
    };
    let (asked, looking) = (paths.clone(), door.clone());
    let look = move || match question {
        Question::Missing => looking.complete(&asked),
        // Outputs may refer to what is elsewhere.
        Question::Available => Ok(looking.has(&asked)),
    };
    let here = match spawn_blocking(look).await {
        Ok(Ok(here)) => here,
        Ok(Err(error)) => {
            error!(error = &error as &dyn Error, "cannot look for what is pushed");
            return reply::refusal(Status::Unavailable, "the cache cannot be read");
        }
        Err(_) => return ending(),
    };
    let mut digits = Vec::with_capacity(paths.len() + 1);
    for (path, here) in paths.iter().zip(here) {
        let yes = match (question, &store) {
            (Question::Missing, _) => !here,
            (Question::Available, Some(store)) if !here => match store.find(&directory, &path.hash()).await {
                Ok(found) => found.is_some_and(|item| item.is(path)),
                Err(error) => {
                    warn!(error = &error as &dyn Error, "cannot look for {path}");
                    return reply::refusal(Status::Unavailable, "the store cannot be asked");
                }
            },
            (Question::Available, _) => here,
        };
        digits.push(if yes { b'1' } else { b'0' });
    }
    digits.push(b'\n');
    reply::never_kept(reply::bytes(reply::TEXT, Bytes::from(digits)))
}

fn told(status: Status, offset: Offset) -> Reply {
    reply::offset(status, offset)
}

fn ending() -> Reply {
    reply::refusal(Status::Unavailable, "the server is ending")
}

fn refuse(refusal: &PushRefusal) -> Reply {
    let status = match refusal {
        PushRefusal::Elsewhere(offset) => return told(Status::Conflict, *offset),
        PushRefusal::TooMuch { .. } => Status::ContentTooLarge,
        PushRefusal::Crowded => Status::Unavailable,
        PushRefusal::Parcel(_)
        | PushRefusal::NotANar { .. }
        | PushRefusal::OtherNar { .. }
        | PushRefusal::NotAddressed { .. }
        | PushRefusal::Dangling { .. } => {
            warn!(error = refusal as &dyn Error, "a push is refused");
            Status::UnprocessableContent
        }
        PushRefusal::Cache(_) | PushRefusal::Io(_) => {
            error!(error = refusal as &dyn Error, "cannot keep a push");
            Status::Unavailable
        }
    };
    reply::refusal(status, refusal.to_string())
}
