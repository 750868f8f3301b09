//! How fast the formats are: `cargo bench -p hauberk-store`.
//!
//! The page cache is hot: what is written as a NAR was made just before.

#![expect(clippy::unwrap_used, reason = "a benchmark may end in a panic")]

#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/golden/data.rs"]
mod data;

use std::{fs, io, path::Path, sync::LazyLock, thread};

use divan::{Bencher, black_box, counter::BytesCount};
use hauberk_store::{
    Derivation, DrvPath, NarInfo, Sha256, StoreDirectory, StorePath,
    derivation::{DerivationView, VerifiedClosure},
    nar::{HashingWriter, Limits, Listing, Verifier, restore, write_path},
    signature::{
        guix::{self, Acl},
        nix,
    },
};

fn main() {
    divan::main();
}

/// One file of 128 MiB, and a tree of 5,000 files of 16 KiB in 50 directories.
static TREES: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let contents: Vec<u8> = (0..128_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(directory.path().join("file"), &contents).unwrap();
    for index in 0..5000 {
        let parent = directory.path().join(format!("tree/{}", index / 100));
        fs::create_dir_all(&parent).unwrap();
        fs::write(parent.join(index.to_string()), &contents[index * 16_384..(index + 1) * 16_384]).unwrap();
    }
    directory
});

/// The bytes of the Guix package set's derivations.
static GRAPH: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| data::graph().into_iter().collect());

fn graph_size() -> BytesCount {
    BytesCount::new(GRAPH.iter().map(|(_, bytes)| bytes.len()).sum::<usize>())
}

fn nar(name: &str) -> Vec<u8> {
    let mut nar = Vec::new();
    write_path(TREES.path().join(name), &mut nar).unwrap();
    nar
}

fn write(bencher: Bencher<'_, '_>, path: &Path) {
    let size = write_path(path, io::sink()).unwrap();
    bencher.counter(BytesCount::new(size)).bench(|| write_path(path, Touching(0)).unwrap());
}

/// A writer that looks at a byte of each cache line, so that no byte is only nominally there.
struct Touching(u8);

impl io::Write for Touching {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = black_box(bytes.iter().step_by(64).fold(self.0, |sum, byte| sum ^ byte));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[divan::bench(args = ["file", "tree"], sample_count = 20)]
fn nar_write(bencher: Bencher<'_, '_>, name: &str) {
    write(bencher, &TREES.path().join(name));
}

#[divan::bench(args = ["file", "tree"], sample_count = 10)]
fn nar_write_hashed(bencher: Bencher<'_, '_>, name: &str) {
    let path = TREES.path().join(name);
    let size = write_path(&path, io::sink()).unwrap();
    bencher.counter(BytesCount::new(size)).bench(|| {
        let mut writer = HashingWriter::new(io::sink());
        write_path(&path, &mut writer).unwrap();
        writer.finish().1
    });
}

#[divan::bench(args = ["file", "tree"], sample_count = 10)]
fn nar_verify(bencher: Bencher<'_, '_>, name: &str) {
    let nar = nar(name);
    bencher.counter(BytesCount::new(nar.len())).bench(|| {
        let mut verifier = Verifier::default();
        nar.chunks(256 * 1024).for_each(|chunk| verifier.push(chunk).unwrap());
        verifier.finish().unwrap()
    });
}

#[divan::bench(args = ["file", "tree"], sample_count = 10)]
fn nar_list(bencher: Bencher<'_, '_>, name: &str) {
    let nar = nar(name);
    bencher.counter(BytesCount::new(nar.len())).bench(|| Listing::read(&nar[..], Limits::default()).unwrap());
}

#[divan::bench(args = ["file", "tree"], sample_count = 10)]
fn nar_restore(bencher: Bencher<'_, '_>, name: &str) {
    let nar = nar(name);
    bencher
        .counter(BytesCount::new(nar.len()))
        .with_inputs(|| tempfile::tempdir().unwrap())
        .bench_refs(|scratch| restore(&nar[..], scratch.path().join("x"), Limits::default()).unwrap());
}

#[divan::bench(args = [1, 2], sample_count = 20)]
fn derivations_parse(bencher: Bencher<'_, '_>, threads: usize) {
    let chunk = GRAPH.len().div_ceil(threads);
    bencher.counter(graph_size()).bench(|| {
        thread::scope(|scope| {
            for part in GRAPH.chunks(chunk) {
                scope.spawn(move || {
                    for (_, bytes) in part {
                        black_box(Derivation::parse(&StoreDirectory::guix(), bytes).unwrap());
                    }
                });
            }
        });
    });
}

#[divan::bench(args = [1, 2], sample_count = 20)]
fn derivations_view(bencher: Bencher<'_, '_>, threads: usize) {
    let chunk = GRAPH.len().div_ceil(threads);
    bencher.counter(graph_size()).bench(|| {
        thread::scope(|scope| {
            for part in GRAPH.chunks(chunk) {
                scope.spawn(move || {
                    for (_, bytes) in part {
                        black_box(DerivationView::parse(&StoreDirectory::guix(), bytes).unwrap());
                    }
                });
            }
        });
    });
}

/// What the same bytes cost when they are only looked at: the bound that memory sets.
#[divan::bench(args = [1, 2], sample_count = 20)]
fn derivations_touch(bencher: Bencher<'_, '_>, threads: usize) {
    let chunk = GRAPH.len().div_ceil(threads);
    bencher.counter(graph_size()).bench(|| {
        thread::scope(|scope| {
            for part in GRAPH.chunks(chunk) {
                scope.spawn(move || {
                    for (_, bytes) in part {
                        black_box(bytes.iter().fold(0, |sum, byte| sum ^ byte));
                    }
                });
            }
        });
    });
}

#[divan::bench(sample_count = 20)]
fn derivations_print(bencher: Bencher<'_, '_>) {
    let parsed: Vec<_> =
        GRAPH.iter().map(|(_, bytes)| Derivation::parse(&StoreDirectory::guix(), bytes).unwrap()).collect();
    bencher.counter(graph_size()).bench(|| parsed.iter().map(|drv| drv.to_bytes().len()).sum::<usize>());
}

#[divan::bench(sample_count = 5)]
fn derivations_verify(bencher: Bencher<'_, '_>) {
    let directory = StoreDirectory::guix();
    let mut waiting: Vec<(DrvPath, &[u8], Derivation)> = GRAPH
        .iter()
        .map(|(name, bytes)| {
            let path = StorePath::from_base_name(&directory, name).unwrap();
            (path.try_into().unwrap(), bytes.as_slice(), Derivation::parse(&directory, bytes).unwrap())
        })
        .collect();
    let (mut closure, mut ordered) = (VerifiedClosure::new(), Vec::new());
    while !waiting.is_empty() {
        waiting.retain(|(path, bytes, parsed)| {
            let ready = parsed.input_derivations.keys().all(|input| closure.contains(input));
            if ready {
                closure.add(path, bytes).unwrap();
                ordered.push((path.clone(), *bytes));
            }
            !ready
        });
    }
    bencher.counter(graph_size()).bench(|| {
        let mut closure = VerifiedClosure::new();
        ordered.iter().for_each(|(path, bytes)| drop(closure.add(path, bytes).unwrap()));
    });
}

const NARINFO: &str = "narinfo/cached-3xf8zk4l1i608sa6k4m25y00ifnd5yma-tree.narinfo";

fn narinfo_text() -> String {
    data::vector_text(NARINFO)
}

#[divan::bench]
fn narinfo_parse(bencher: Bencher<'_, '_>) {
    let text = narinfo_text();
    bencher.bench(|| NarInfo::parse(&StoreDirectory::guix(), black_box(&text)).unwrap());
}

#[divan::bench]
fn narinfo_print(bencher: Bencher<'_, '_>) {
    let info = NarInfo::parse(&StoreDirectory::guix(), &narinfo_text()).unwrap();
    bencher.bench(|| black_box(&info).to_string());
}

#[divan::bench]
fn nix_sign(bencher: Bencher<'_, '_>) {
    let key = nix::SecretKey::generate("bench-1").unwrap();
    bencher.bench(|| key.sign(black_box("1;/nix/store/x;sha256:y;1;")));
}

#[divan::bench]
fn nix_verify(bencher: Bencher<'_, '_>) {
    let key = nix::SecretKey::generate("bench-1").unwrap();
    let (public, signature) = (key.public_key(), key.sign("text"));
    bencher.bench(|| assert!(public.verify(black_box("text"), &signature)));
}

#[divan::bench]
fn guix_sign(bencher: Bencher<'_, '_>) {
    let key = guix::SecretKey::generate().unwrap();
    let hash = Sha256::digest(b"text");
    bencher.bench(|| key.sign(black_box(&hash)).to_text());
}

#[divan::bench]
fn guix_verify(bencher: Bencher<'_, '_>) {
    let key = guix::SecretKey::generate().unwrap();
    let acl: Acl = [key.public_key().clone()].into_iter().collect();
    let hash = Sha256::digest(b"text");
    let text = key.sign(&hash).to_text();
    bencher.bench(|| guix::Signature::parse_text(black_box(&text)).unwrap().verify(&hash, &acl).unwrap());
}
