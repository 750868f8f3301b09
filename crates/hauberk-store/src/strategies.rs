//! Strategies of `proptest` for the types of this crate.

use std::collections::BTreeMap;

use proptest::{collection, option, prelude::*};

use crate::{
    Derivation, DrvPath, Hash, NarInfo, OutputName, OutputNames, Sha256, StoreDirectory, StorePath,
    derivation::Output,
    hash::Algorithm,
    nar::Node,
    narinfo::{Compression, NarUrl},
    store_path::MAX_NAME_LENGTH,
};

/// Gives store directories: Nix's, Guix's, and others.
pub fn store_directory() -> impl Strategy<Value = StoreDirectory> {
    let other = "/[a-z]{1,8}(/[a-z0-9._-]{1,8}x){0,2}";
    prop_oneof![
        Just(StoreDirectory::nix()),
        Just(StoreDirectory::guix()),
        other.prop_map(|path| StoreDirectory::parse(&path).expect("the pattern gives absolute paths")),
    ]
}

/// Gives names of store paths, short and as long as may be.
pub fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        9 => "[0-9A-Za-z+_?=-][0-9A-Za-z+._?=-]{0,30}",
        1 => Just("n".repeat(MAX_NAME_LENGTH)),
    ]
}

/// Gives paths in one store.
pub fn store_path(directory: StoreDirectory) -> impl Strategy<Value = StorePath> {
    (any::<[u8; 20]>(), name()).prop_map(move |(digest, name)| {
        StorePath::from_digest(&directory, &digest, &name).expect("the pattern gives names")
    })
}

/// Gives paths of derivations in one store.
pub fn drv_path(directory: StoreDirectory) -> impl Strategy<Value = DrvPath> {
    (any::<[u8; 20]>(), "[a-z][a-z0-9.-]{0,20}").prop_map(move |(digest, name)| {
        let path = StorePath::from_digest(&directory, &digest, &format!("{name}.drv"));
        path.expect("the pattern gives names").try_into().expect("the name ends in .drv")
    })
}

/// Gives names of outputs.
pub fn output_name() -> impl Strategy<Value = OutputName> {
    prop_oneof![
        Just(OutputName::OUT),
        "[a-z][a-z0-9_-]{0,8}"
            .prop_map(|name| { OutputName::parse(&name).expect("the pattern gives names") })
    ]
}

/// Gives digests.
pub fn sha256() -> impl Strategy<Value = Sha256> {
    any::<[u8; 32]>().prop_map(Sha256::from_bytes)
}

/// Gives hashes of every algorithm.
pub fn hash() -> impl Strategy<Value = Hash> {
    (0..Algorithm::ALL.len(), any::<[u8; 8]>()).prop_map(|(index, data)| Algorithm::ALL[index].hash(&data))
}

fn output(directory: StoreDirectory) -> impl Strategy<Value = Output> {
    let path = option::of(store_path(directory));
    let hash =
        prop_oneof![Just(String::new()), Just("impure".to_owned()), hash().prop_map(|hash| hash.to_base16())];
    let algorithm = prop_oneof![Just(""), Just("sha256"), Just("r:sha1")];
    (path, algorithm, hash).prop_map(|(path, algorithm, hash)| Output {
        path,
        hash_algo: algorithm.into(),
        hash,
    })
}

/// Gives derivations of `/gnu/store` of any kind; their paths do not follow from them.
pub fn derivation() -> impl Strategy<Value = Derivation> {
    let directory = StoreDirectory::guix;
    let text = || {
        prop_oneof![
            collection::vec(any::<u8>(), 0..30),
            "[a-z \"\\\\\n\r\t]{0,20}".prop_map(String::into_bytes),
        ]
    };
    let names = || collection::vec(output_name(), 0..3).prop_map(OutputNames::from_iter);
    (
        collection::btree_map(output_name(), output(directory()), 0..4),
        collection::btree_map(drv_path(directory()), names(), 0..5),
        collection::btree_set(store_path(directory()), 0..5),
        "[a-z0-9_-]{0,12}",
        text(),
        collection::vec(text(), 0..4),
        collection::btree_map(text(), text(), 0..6),
    )
        .prop_map(|(outputs, input_derivations, input_sources, system, builder, args, env)| Derivation {
            outputs,
            input_derivations,
            input_sources,
            system,
            builder,
            args,
            env,
        })
}

fn nar_url() -> impl Strategy<Value = NarUrl> {
    let names = ["none", "gzip", "zstd", "lzip", "xz", "bzip2", "br", "other"];
    ("[a-z0-9/._-]{1,30}", 0..names.len(), option::of(any::<u64>()), option::of(hash())).prop_map(
        move |(url, index, file_size, file_hash)| NarUrl {
            url,
            compression: Compression::parse(names[index]),
            file_size,
            file_hash,
        },
    )
}

/// Gives unsigned narinfos.
pub fn narinfo() -> impl Strategy<Value = NarInfo> {
    let word = || "[a-z0-9][a-z0-9:._-]{0,20}";
    store_directory().prop_flat_map(move |directory| {
        let paths = || store_path(directory.clone());
        (
            paths(),
            collection::vec(nar_url(), 1..4),
            sha256(),
            any::<u64>(),
            collection::btree_set(paths(), 0..5),
            option::of(paths()),
            option::of(word()),
            option::of(word()),
            collection::vec(("X-[A-Za-z]{1,10}", word()), 0..3),
        )
            .prop_map(
                |(store_path, urls, nar_hash, nar_size, references, deriver, system, ca, unknown)| NarInfo {
                    store_path,
                    urls,
                    nar_hash,
                    nar_size,
                    references,
                    deriver,
                    system,
                    signatures: Vec::new(),
                    ca,
                    unknown,
                    guix_signature: None,
                },
            )
    })
}

/// Gives file trees.
pub fn node() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        (any::<bool>(), collection::vec(any::<u8>(), 0..40))
            .prop_map(|(executable, contents)| Node::File { executable, contents }),
        collection::vec(1..=255_u8, 1..40).prop_map(|target| Node::Symlink { target }),
    ];
    let name = collection::vec(prop_oneof![1..b'/', b'0'..=255], 1..20)
        .prop_filter("dots are no names", |name| !matches!(&name[..], b"." | b".."));
    leaf.prop_recursive(4, 40, 6, move |inner| {
        collection::btree_map(name.clone(), inner, 0..6)
            .prop_map(|entries: BTreeMap<_, _>| Node::Directory { entries })
    })
}
