//! Every operation there is, with arguments that do not matter: what counts is the answer.

use std::{collections::BTreeSet, fmt::Debug, path::Path};

use hauberk_daemon::{
    BuildDaemon, BuildMode, BuildTarget, ClientOptions, DaemonError, GarbageAction, GarbageRequest, LogSink,
    PathInfo,
};
use hauberk_store::{DrvPath, NarHash, StorePath};

/// Operations there are to try.
pub(crate) const OPERATIONS: usize = 24;

/// Tries one operation and spells its result.
///
/// # Panics
/// For an operation from [`OPERATIONS`] on.
pub(crate) async fn attempt(
    daemon: &mut dyn BuildDaemon,
    operation: usize,
    log: &mut dyn LogSink,
) -> Result<String, DaemonError> {
    fn spell<T: Debug>(result: T) -> String {
        format!("{result:?}")
    }
    let directory = daemon.info().store_directory.clone();
    let path = |name| StorePath::from_base_name(&directory, name).expect("the name is good");
    let derivation = DrvPath::try_from(path("45rrqddcql46lzs8nma7hncjl4cvy7df-simple.drv"));
    let derivation = derivation.expect("the name is that of a derivation");
    let path = path("45rrqddcql46lzs8nma7hncjl4cvy7df-simple");
    let paths = BTreeSet::from([path.clone()]);
    let targets = [BuildTarget::all(derivation.clone())];
    let nar = hauberk_store::nar::Node::file(b"x".to_vec()).to_nar().expect("a file is a NAR");
    match operation {
        0 => daemon.set_options(&ClientOptions::default()).await.map(spell),
        1 => daemon.query_valid_paths(&paths).await.map(spell),
        2 => daemon.is_valid_path(&path).await.map(spell),
        3 => daemon.query_path_info(&path).await.map(spell),
        4 => daemon.query_path_from_hash_part(&path.hash()).await.map(spell),
        5 => daemon.query_referrers(&path).await.map(spell),
        6 => daemon.query_valid_derivers(&path).await.map(spell),
        7 => daemon.query_derivation_outputs(&derivation).await.map(spell),
        8 => daemon.query_substitutable_paths(&paths).await.map(spell),
        9 => daemon.query_substitutable_path_infos(&paths).await.map(spell),
        10 => daemon.query_missing(&targets).await.map(spell),
        11 => daemon.ensure_path(&path, log).await.map(spell),
        12 => daemon.build(&targets, BuildMode::Normal, log).await.map(spell),
        13 => daemon.add_text("x", b"x", &BTreeSet::new()).await.map(spell),
        14 => daemon.add_source("x", &mut nar.as_slice(), &BTreeSet::new()).await.map(spell),
        15 => {
            let info = PathInfo {
                path,
                deriver: None,
                nar_hash: NarHash::digest(&nar),
                references: BTreeSet::new(),
                registration_time: 0,
                nar_size: nar.len() as u64,
                ultimate: false,
                signatures: BTreeSet::new(),
                content_address: None,
            };
            daemon.add_nar(&info, &mut nar.as_slice(), false).await.map(spell)
        }
        16 => {
            let mut nar = Vec::new();
            daemon.nar_from_path(&path, &mut nar).await.map(|size| spell((size, nar)))
        }
        17 => {
            let mut stream = Vec::new();
            daemon.export_paths(&[path], false, &mut stream).await.map(|()| spell(stream))
        }
        18 => daemon.import_paths(&mut &b"data"[..]).await.map(spell),
        19 => daemon.add_temp_root(&path).await.map(spell),
        20 => daemon.add_indirect_root(Path::new("/link")).await.map(spell),
        21 => daemon.find_roots().await.map(spell),
        22 => daemon.verify_store(true, true).await.map(spell),
        23 => daemon.collect_garbage(&GarbageRequest::new(GarbageAction::ListDead)).await.map(spell),
        other => panic!("there is no operation {other}"),
    }
}
