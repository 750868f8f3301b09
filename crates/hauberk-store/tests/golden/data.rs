//! Real bytes, carried in `tests/data` at the top.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

/// Gives the path of a file or folder of `tests/data`.
pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(name)
}

/// Reads a file of the Guix vectors.
pub(crate) fn vector(name: &str) -> Vec<u8> {
    let path = data("guix-vectors").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Reads a text of the Guix vectors.
pub(crate) fn vector_text(name: &str) -> String {
    String::from_utf8(vector(name)).unwrap()
}

/// Gives the names of the files in a folder of the Guix vectors, sorted.
pub(crate) fn vector_names(folder: &str, suffix: &str) -> Vec<String> {
    let entries = fs::read_dir(data("guix-vectors").join(folder)).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(suffix))
        .collect();
    names.sort();
    names
}

/// Reads the derivations of the Guix package set: name to bytes.
pub(crate) fn graph() -> BTreeMap<String, Vec<u8>> {
    let file = fs::File::open(data("guix-graph/drvs.tar.zst")).unwrap();
    let mut tar = Vec::new();
    zstd::Decoder::new(file).unwrap().read_to_end(&mut tar).unwrap();
    let (mut files, mut rest, mut long_name) = (BTreeMap::new(), &tar[..], None);
    while rest.len() >= 512 && rest[0] != 0 {
        let text = |range: std::ops::Range<usize>| {
            let field = &rest[range];
            let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
            String::from_utf8(field[..end].to_vec()).unwrap()
        };
        let size = usize::from_str_radix(text(124..136).trim(), 8).unwrap();
        let contents = &rest[512..512 + size];
        if rest[156] == b'L' {
            long_name = Some(String::from_utf8(contents[..size - 1].to_vec()).unwrap());
        } else {
            files.insert(long_name.take().unwrap_or_else(|| text(0..100)), contents.to_vec());
        }
        rest = &rest[512 + size.next_multiple_of(512)..];
    }
    files
}
