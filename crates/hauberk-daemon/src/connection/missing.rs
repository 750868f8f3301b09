//! What a build would take.

use std::collections::{BTreeMap, BTreeSet};

use hauberk_store::{
    Derivation, DrvPath, OutputNames, StoreDirectory, StorePath,
    nar::{Limits, Node},
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Connection;
use crate::{
    build::{BuildTarget, OutputSelection},
    error::DaemonError,
    missing::Missing,
    operation::Operation,
    path_info::SubstitutablePathInfo,
    wire::{Incoming, WireError, malformed},
};

/// Largest derivation read through the daemon, as a NAR, in bytes.
const LARGEST_DERIVATION: u64 = 64 << 20;

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection<S> {
    pub(super) async fn do_query_missing(&mut self, targets: &[BuildTarget]) -> Result<Missing, DaemonError> {
        if self.is_guix() {
            return self.missing_in_guix(targets).await;
        }
        let mut call = self.call(Operation::QueryMissing)?;
        call.request.texts(targets.iter().map(ToString::to_string).collect::<Vec<_>>().iter());
        let mut call = call.exchange().await?;
        let directory = call.directory.clone();
        let missing = read_missing(call.incoming(), &directory).await;
        let missing = call.wire(missing)?;
        Ok(call.end(missing))
    }

    /// Walks from the targets to what they need, level by level, with one question for each level.
    async fn missing_in_guix(&mut self, targets: &[BuildTarget]) -> Result<Missing, DaemonError> {
        let substitutes = self.options.as_ref().is_none_or(|options| options.use_substitutes);
        let mut missing = Missing::default();
        let mut level = Level::default();
        for target in targets {
            match target {
                BuildTarget::Path(path) => {
                    level.paths.insert(path.clone());
                }
                BuildTarget::Derivation { derivation, outputs } => {
                    let outputs = match outputs {
                        OutputSelection::All => None,
                        OutputSelection::Named(names) => Some(names.iter().cloned().collect()),
                    };
                    level.want(derivation.clone(), outputs);
                }
            }
        }
        let mut seen_paths = BTreeSet::new();
        let mut seen_outputs = BTreeSet::new();
        while !level.derivations.is_empty() || !level.paths.is_empty() {
            level =
                self.next_level(level, substitutes, &mut missing, &mut seen_paths, &mut seen_outputs).await?;
        }
        Ok(missing)
    }

    async fn next_level(
        &mut self,
        level: Level,
        substitutes: bool,
        missing: &mut Missing,
        seen_paths: &mut BTreeSet<StorePath>,
        seen_outputs: &mut BTreeSet<StorePath>,
    ) -> Result<Level, DaemonError> {
        // Derivations that are not there can only be fetched, and cannot be looked into before they are.
        let mut asked: BTreeSet<StorePath> =
            level.paths.into_iter().filter(|path| seen_paths.insert(path.clone())).collect();
        let named: BTreeSet<StorePath> = level.derivations.keys().map(|drv| drv.as_path().clone()).collect();
        let there = self.do_query_valid_paths(&named).await?;
        asked.extend(named.difference(&there).filter(|path| seen_paths.insert((*path).clone())).cloned());

        let mut derivations = Vec::new();
        for (derivation, wanted) in level.derivations {
            if !there.contains(derivation.as_path()) {
                continue;
            }
            let mut outputs: BTreeSet<StorePath> = BTreeSet::new();
            for (name, path) in self.do_query_derivation_outputs(&derivation).await? {
                if wanted.as_ref().is_none_or(|wanted| wanted.contains(&name))
                    && seen_outputs.insert(path.clone())
                {
                    outputs.insert(path);
                }
            }
            derivations.push((derivation, outputs));
        }
        let mut all = asked.clone();
        all.extend(derivations.iter().flat_map(|(_, outputs)| outputs.iter().cloned()));
        let valid = self.do_query_valid_paths(&all).await?;
        let lacking: BTreeSet<StorePath> = all.difference(&valid).cloned().collect();
        let mut fetchable = BTreeMap::new();
        if substitutes && !lacking.is_empty() {
            let infos = self.do_query_substitutable_path_infos(&lacking).await?;
            fetchable.extend(infos.into_iter().map(|info| (info.path.clone(), info)));
        }

        let mut next = Level::default();
        let fetch = |info: &SubstitutablePathInfo, next: &mut Level, missing: &mut Missing| {
            if missing.will_substitute.insert(info.path.clone()) {
                missing.download_size = missing.download_size.saturating_add(info.download_size);
                missing.nar_size = missing.nar_size.saturating_add(info.nar_size);
                next.paths.extend(info.references.iter().cloned());
            }
        };
        for path in asked.difference(&valid) {
            match fetchable.get(path) {
                Some(info) => fetch(info, &mut next, missing),
                None => {
                    missing.unknown.insert(path.clone());
                }
            }
        }
        for (derivation, outputs) in derivations {
            let infos: Option<Vec<_>> = outputs.difference(&valid).map(|path| fetchable.get(path)).collect();
            if let Some(infos) = infos {
                infos.into_iter().for_each(|info| fetch(info, &mut next, missing));
            } else if missing.will_build.insert(derivation.clone()) {
                let contents = self.read_derivation(&derivation).await?;
                next.paths.extend(contents.input_sources);
                for (input, outputs) in contents.input_derivations {
                    next.want(input, Some(outputs));
                }
            }
        }
        Ok(next)
    }

    /// Reads a derivation through the daemon, which need not share a file system with us.
    async fn read_derivation(&mut self, path: &DrvPath) -> Result<Derivation, DaemonError> {
        let operation = Operation::ExportPath;
        let damaged =
            |reason: String| DaemonError::Damaged { operation, path: path.as_path().clone(), reason };
        let info = self.do_query_path_info(path).await?;
        let info = info.ok_or_else(|| DaemonError::NotValid { path: path.as_path().clone() })?;
        if info.nar_size > LARGEST_DERIVATION {
            return Err(damaged(format!("a derivation of {} bytes", info.nar_size)));
        }
        let mut nar = Vec::new();
        self.do_nar_from_path(path, &mut nar).await?;
        let node = Node::from_nar(&nar, Limits::with_size(LARGEST_DERIVATION));
        let Ok(Node::File { contents, .. }) = node else {
            return Err(damaged("it is not a plain file".to_owned()));
        };
        Derivation::parse(&self.info.store_directory, &contents).map_err(|error| damaged(error.to_string()))
    }
}

/// What to look at next.
#[derive(Debug, Default)]
struct Level {
    /// Derivations with the outputs wanted of them; nothing means all.
    derivations: BTreeMap<DrvPath, Option<OutputNames>>,
    paths: BTreeSet<StorePath>,
}

impl Level {
    fn want(&mut self, derivation: DrvPath, outputs: Option<OutputNames>) {
        let wanted = self.derivations.entry(derivation).or_insert_with(|| Some(OutputNames::new()));
        match (wanted.as_mut(), outputs) {
            (Some(names), Some(outputs)) => names.extend(outputs),
            (_, None) => *wanted = None,
            (None, Some(_)) => {}
        }
    }
}

async fn read_missing<R: AsyncRead + Unpin>(
    incoming: &mut Incoming<R>,
    directory: &StoreDirectory,
) -> Result<Missing, WireError> {
    let mut will_build = BTreeSet::new();
    for path in incoming.paths(directory).await? {
        let derivation = DrvPath::try_from(path);
        will_build.insert(derivation.map_err(|error| malformed("derivation", &error.path.to_string()))?);
    }
    Ok(Missing {
        will_build,
        will_substitute: incoming.paths(directory).await?,
        unknown: incoming.paths(directory).await?,
        download_size: incoming.number().await?,
        nar_size: incoming.number().await?,
    })
}
