//! Questions about paths.

use std::collections::{BTreeMap, BTreeSet};

use hauberk_store::{DrvPath, NarHash, OutputName, StoreDirectory, StorePath, StorePathHash};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Connection;
use crate::{
    error::DaemonError,
    operation::Operation,
    path_info::{PathInfo, SubstitutablePathInfo},
    version::{Dialect, ProtocolVersion},
    wire::{Incoming, Limit, WireError, malformed},
};

/// Builders every Nix from 2.8 on has.
const NIX_BUILDERS: [&str; 3] = ["buildenv", "fetchurl", "unpack-channel"];

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection<S> {
    pub(super) async fn do_is_valid_path(&mut self, path: &StorePath) -> Result<bool, DaemonError> {
        let mut call = self.call(Operation::IsValidPath)?;
        call.request.display(path);
        let mut call = call.exchange().await?;
        let valid = call.incoming().flag().await;
        let valid = call.wire(valid)?;
        Ok(call.end(valid))
    }

    pub(super) async fn do_query_valid_paths(
        &mut self,
        paths: &BTreeSet<StorePath>,
    ) -> Result<BTreeSet<StorePath>, DaemonError> {
        let mut call = self.call(Operation::QueryValidPaths)?;
        call.request.paths(paths);
        if call.dialect() == Dialect::Nix {
            call.request.flag(false); // substitute: no
        }
        call.paths().await
    }

    pub(super) async fn do_query_path_info(
        &mut self,
        path: &StorePath,
    ) -> Result<Option<PathInfo>, DaemonError> {
        let guix = self.is_guix();
        let mut call = self.call(Operation::QueryPathInfo)?;
        call.request.display(path);
        let mut call = match call.exchange().await {
            // Guix reports an unknown path as an error.
            Err(DaemonError::Daemon { message, .. }) if guix && message.contains("is not valid") => {
                return Ok(None);
            }
            other => other?,
        };
        let (version, directory) = (call.version, call.directory.clone());
        let info = read_info(call.incoming(), version, &directory, path).await;
        let info = call.wire(info)?;
        Ok(call.end(info))
    }

    pub(super) async fn do_query_path_from_hash_part(
        &mut self,
        hash: &StorePathHash,
    ) -> Result<Option<StorePath>, DaemonError> {
        let mut call = self.call(Operation::QueryPathFromHashPart)?;
        call.request.text(hash.as_str());
        let mut call = call.exchange().await?;
        let directory = call.directory.clone();
        let path = call.incoming().optional_path(&directory).await;
        let path = call.wire(path)?;
        Ok(call.end(path))
    }

    pub(super) async fn do_query_referrers(
        &mut self,
        path: &StorePath,
    ) -> Result<BTreeSet<StorePath>, DaemonError> {
        let mut call = self.call(Operation::QueryReferrers)?;
        call.request.display(path);
        call.paths().await
    }

    pub(super) async fn do_query_valid_derivers(
        &mut self,
        path: &StorePath,
    ) -> Result<BTreeSet<DrvPath>, DaemonError> {
        let mut call = self.call(Operation::QueryValidDerivers)?;
        call.request.display(path);
        let paths = call.paths().await?;
        Ok(paths.into_iter().filter_map(|path| DrvPath::try_from(path).ok()).collect())
    }

    pub(super) async fn do_query_derivation_outputs(
        &mut self,
        derivation: &DrvPath,
    ) -> Result<BTreeMap<OutputName, StorePath>, DaemonError> {
        if self.is_guix() {
            let mut call = self.call(Operation::QueryDerivationOutputs)?;
            call.request.display(derivation);
            let paths = call.paths().await?;
            return Ok(paths
                .into_iter()
                .filter_map(|path| Some((output_name(derivation, &path)?, path)))
                .collect());
        }
        let mut call = self.call(Operation::QueryDerivationOutputMap)?;
        call.request.display(derivation);
        let mut call = call.exchange().await?;
        let directory = call.directory.clone();
        let outputs = read_outputs(call.incoming(), &directory).await;
        let outputs = call.wire(outputs)?;
        Ok(call.end(outputs))
    }

    pub(super) async fn do_query_substitutable_paths(
        &mut self,
        paths: &BTreeSet<StorePath>,
    ) -> Result<BTreeSet<StorePath>, DaemonError> {
        let mut call = self.call(Operation::QuerySubstitutablePaths)?;
        call.request.paths(paths);
        call.paths().await
    }

    pub(super) async fn do_query_substitutable_path_infos(
        &mut self,
        paths: &BTreeSet<StorePath>,
    ) -> Result<Vec<SubstitutablePathInfo>, DaemonError> {
        let mut call = self.call(Operation::QuerySubstitutablePathInfos)?;
        match call.dialect() {
            Dialect::Guix => {
                call.request.paths(paths);
            }
            Dialect::Nix => {
                call.request.number(paths.len() as u64);
                for path in paths {
                    call.request.display(path).text(""); // no content address
                }
            }
        }
        let mut call = call.exchange().await?;
        let directory = call.directory.clone();
        let infos = read_substitutables(call.incoming(), &directory).await;
        let infos = call.wire(infos)?;
        Ok(call.end(infos))
    }

    pub(super) async fn do_built_in_builders(&mut self) -> Result<BTreeSet<String>, DaemonError> {
        if !self.is_guix() {
            return Ok(NIX_BUILDERS.map(str::to_owned).into());
        }
        let call = self.call(Operation::BuiltInBuilders)?;
        Ok(call.words().await?.into_iter().collect())
    }

    pub(super) async fn do_substitute_urls(&mut self) -> Result<Vec<String>, DaemonError> {
        let operation = Operation::SubstituteUrls;
        if !self.is_guix() || self.info.version < ProtocolVersion::GUIX_NEWEST {
            let reason = "only Guix daemons from protocol 0x164 on tell their substitute servers";
            return Err(DaemonError::Unsupported { operation, reason });
        }
        self.call(operation)?.words().await
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> super::Call<'_, S> {
    /// Makes an exchange whose result is a set of paths.
    pub(super) async fn paths(self) -> Result<BTreeSet<StorePath>, DaemonError> {
        let mut call = self.exchange().await?;
        let directory = call.directory.clone();
        let paths = call.incoming().paths(&directory).await;
        let paths = call.wire(paths)?;
        Ok(call.end(paths))
    }

    /// Makes an exchange whose result is one path.
    pub(super) async fn path(self) -> Result<StorePath, DaemonError> {
        let mut call = self.exchange().await?;
        let directory = call.directory.clone();
        let path = call.incoming().path(&directory).await;
        let path = call.wire(path)?;
        Ok(call.end(path))
    }

    /// Makes an exchange whose result is a list of words.
    async fn words(self) -> Result<Vec<String>, DaemonError> {
        let mut call = self.exchange().await?;
        let words = call.incoming().words(Limit::ENTRIES).await;
        let words = call.wire(words)?;
        Ok(call.end(words))
    }

    /// Makes an exchange whose result is a number that tells nothing.
    pub(super) async fn acknowledged(self) -> Result<(), DaemonError> {
        let mut call = self.exchange().await?;
        let number = call.incoming().number().await;
        call.wire(number)?;
        call.end(());
        Ok(())
    }
}

/// Reads the name of an output off its path, which every derivation's outputs follow: `NAME` for `out`, `NAME-OUTPUT` else.
pub(super) fn output_name(derivation: &DrvPath, output: &StorePath) -> Option<OutputName> {
    let rest = output.name().strip_prefix(derivation.derivation_name())?;
    match rest.strip_prefix('-') {
        Some(name) => OutputName::parse(name).ok(),
        None => rest.is_empty().then_some(OutputName::OUT),
    }
}

async fn read_info<R: AsyncRead + Unpin>(
    incoming: &mut Incoming<R>,
    version: ProtocolVersion,
    directory: &StoreDirectory,
    path: &StorePath,
) -> Result<Option<PathInfo>, WireError> {
    let nix = version.dialect() == Dialect::Nix;
    if nix && !incoming.flag().await? {
        return Ok(None);
    }
    read_valid_info(incoming, nix, directory, path.clone()).await.map(Some)
}

/// Reads what is known of `path`.
pub(super) async fn read_valid_info<R: AsyncRead + Unpin>(
    incoming: &mut Incoming<R>,
    nix: bool,
    directory: &StoreDirectory,
    path: StorePath,
) -> Result<PathInfo, WireError> {
    let deriver = incoming.optional_path(directory).await?;
    let hash = incoming.text(Limit::WORD).await?;
    let nar_hash = NarHash::parse(&hash).map_err(|_| malformed("NAR hash", &hash))?;
    let references = incoming.paths(directory).await?;
    let registration_time = incoming.number().await?;
    let nar_size = incoming.number().await?;
    let mut info = PathInfo {
        path,
        deriver,
        nar_hash,
        references,
        registration_time,
        nar_size,
        ultimate: false,
        signatures: BTreeSet::new(),
        content_address: None,
    };
    if nix {
        info.ultimate = incoming.flag().await?;
        info.signatures = incoming.words(Limit::FIELDS).await?.into_iter().collect();
        info.content_address = Some(incoming.text(Limit::WORD).await?).filter(|address| !address.is_empty());
    }
    Ok(info)
}

async fn read_outputs<R: AsyncRead + Unpin>(
    incoming: &mut Incoming<R>,
    directory: &StoreDirectory,
) -> Result<BTreeMap<OutputName, StorePath>, WireError> {
    let mut outputs = BTreeMap::new();
    for _ in 0..incoming.count(Limit::ENTRIES).await? {
        let name = incoming.text(Limit::PATH).await?;
        let name = OutputName::parse(&name).map_err(|_| malformed("output name", &name))?;
        if let Some(path) = incoming.optional_path(directory).await? {
            outputs.insert(name, path);
        }
    }
    Ok(outputs)
}

async fn read_substitutables<R: AsyncRead + Unpin>(
    incoming: &mut Incoming<R>,
    directory: &StoreDirectory,
) -> Result<Vec<SubstitutablePathInfo>, WireError> {
    let mut infos = Vec::new();
    for _ in 0..incoming.count(Limit::PATHS).await? {
        infos.push(SubstitutablePathInfo {
            path: incoming.path(directory).await?,
            deriver: incoming.optional_path(directory).await?,
            references: incoming.paths(directory).await?,
            download_size: incoming.number().await?,
            nar_size: incoming.number().await?,
        });
    }
    Ok(infos)
}
