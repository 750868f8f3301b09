//! Roots, garbage and the upkeep of the store.

use std::{os::unix::ffi::OsStrExt, path::Path};

use hauberk_store::{StoreDirectory, StorePath};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Connection;
use crate::{
    error::DaemonError,
    garbage::{GarbageAction, GarbageReport, GarbageRequest, Root},
    operation::Operation,
    wire::{Incoming, Limit, WireError},
};

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection<S> {
    pub(super) async fn do_add_temp_root(&mut self, path: &StorePath) -> Result<(), DaemonError> {
        let mut call = self.call(Operation::AddTempRoot)?;
        call.request.display(path);
        call.acknowledged().await
    }

    pub(super) async fn do_add_indirect_root(&mut self, link: &Path) -> Result<(), DaemonError> {
        let operation = Operation::AddIndirectRoot;
        if !link.is_absolute() {
            return Err(DaemonError::Unsupported { operation, reason: "the link's path must be absolute" });
        }
        let mut call = self.call(operation)?;
        call.request.bytes(link.as_os_str().as_bytes());
        call.acknowledged().await
    }

    pub(super) async fn do_find_roots(&mut self) -> Result<Vec<Root>, DaemonError> {
        let mut call = self.call(Operation::FindRoots)?.exchange().await?;
        let directory = call.directory.clone();
        let roots = read_roots(call.incoming(), &directory).await;
        let roots = call.wire(roots)?;
        Ok(call.end(roots))
    }

    pub(super) async fn do_verify_store(
        &mut self,
        check_contents: bool,
        repair: bool,
    ) -> Result<bool, DaemonError> {
        let mut call = self.call(Operation::VerifyStore)?;
        call.request.flag(check_contents).flag(repair);
        let mut call = call.exchange().await?;
        let errors = call.incoming().flag().await;
        let errors = call.wire(errors)?;
        Ok(call.end(errors))
    }

    pub(super) async fn do_optimise_store(&mut self) -> Result<(), DaemonError> {
        self.call(Operation::OptimiseStore)?.acknowledged().await
    }

    pub(super) async fn do_collect_garbage(
        &mut self,
        request: &GarbageRequest,
    ) -> Result<GarbageReport, DaemonError> {
        let mut call = self.call(Operation::CollectGarbage)?;
        let (action, listed) = match &request.action {
            GarbageAction::ListLive => (0, None),
            GarbageAction::ListDead => (1, None),
            GarbageAction::DeleteDead => (2, None),
            GarbageAction::Delete(paths) => (3, Some(paths)),
        };
        call.request.number(action);
        match listed {
            Some(paths) => call.request.paths(paths),
            None => call.request.number(0),
        };
        call.request
            .flag(false) // ignore liveness: never
            .number(request.max_freed.unwrap_or(u64::MAX))
            .number(0) // three obsolete fields
            .number(0)
            .number(0);
        let mut call = call.exchange().await?;
        let report = read_report(call.incoming()).await;
        let report = call.wire(report)?;
        Ok(call.end(report))
    }
}

async fn read_roots<R: AsyncRead + Unpin>(
    incoming: &mut Incoming<R>,
    directory: &StoreDirectory,
) -> Result<Vec<Root>, WireError> {
    let mut roots = Vec::new();
    for _ in 0..incoming.count(Limit::PATHS).await? {
        let link = incoming.bytes(Limit::PATH).await?;
        let link = Path::new(std::ffi::OsStr::from_bytes(&link)).to_owned();
        roots.push(Root { link, target: incoming.path(directory).await? });
    }
    Ok(roots)
}

async fn read_report<R: AsyncRead + Unpin>(incoming: &mut Incoming<R>) -> Result<GarbageReport, WireError> {
    let paths = incoming.words(Limit::PATHS).await?;
    let bytes_freed = incoming.number().await?;
    incoming.number().await?; // obsolete
    Ok(GarbageReport { paths, bytes_freed })
}
