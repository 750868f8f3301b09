//! What a request path asks for.

use hauberk_store::{
    NarHash, Sha256, StoreDirectory, StorePath, StorePathHash, base32, narinfo::Compression, store_path,
};

use crate::{
    inbox::{Part, UploadName},
    nonce::Nonce,
    products::parse_file_name,
    push::{ParcelName, Question},
};

/// Longest request path looked at; a store path's name has at most 211 characters, each perhaps percent-encoded.
const MAX_PATH: usize = 1024;

/// Characters of a nix-base32 SHA-256.
const SHA256_DIGITS: usize = base32::encoded_length(32);

/// What a request path asks for. Only checked names leave this module: nothing here can point outside a store or a
/// cache directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// `/`.
    Home,
    /// `/nix-cache-info`.
    CacheInfo,
    /// `/HASH.narinfo`.
    NarInfo(StorePathHash),
    /// `/HASH.ls`.
    Listing(StorePathHash),
    /// `/nar/HASH-NARHASH.nar`: a store item as its narinfo named it.
    StoreNar(StorePathHash, NarHash),
    /// `/nar/ITEM` and `/nar/COMPRESSION/ITEM`, as Guix has them.
    ItemNar(Compression, StorePath),
    /// `/nar/FILE`: a file of the cache directory.
    CachedNar(String),
    /// `/log/ITEM`.
    Log(StorePath),
    /// `/log/attempt/NUMBER`.
    AttemptLog(u64),
    /// `/file/NAME/sha256/HASH`: the file with this content, as Guix asks for sources.
    File(StorePath, Sha256),
    /// `/product/HASH/NAME`: a build product, to be kept under this name.
    Product(Sha256, String),
    /// `/identity/NONCE`.
    Identity(Nonce),
    /// `/upload/NUMBER/HASH.narinfo` and `/upload/NUMBER/HASH.nar`.
    Upload(UploadName),
    /// `/push/EVALUATION/…`.
    Push(u64, PushPart),
    /// `/metrics`.
    Metrics,
    /// `/health`.
    Health,
    /// `/version`.
    Version,
    /// `/signing-key.pub`.
    SigningKey,
    /// Anything else.
    Unknown,
}

/// What of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PushPart {
    /// `missing` or `available`.
    Question(Question),
    /// `parcel/NAME`.
    Parcel(ParcelName),
}

impl Route {
    /// Reads a request path, as sent.
    pub(super) fn parse(directory: &StoreDirectory, path: &str) -> Self {
        if path.len() > MAX_PATH {
            return Self::Unknown;
        }
        let Some(path) = path.strip_prefix('/') else { return Self::Unknown };
        match path {
            "" => Self::Home,
            "nix-cache-info" => Self::CacheInfo,
            "metrics" => Self::Metrics,
            "health" => Self::Health,
            "version" => Self::Version,
            "signing-key.pub" => Self::SigningKey,
            _ => {
                if let Some(rest) = path.strip_prefix("upload/") {
                    return upload(rest).map_or(Self::Unknown, Self::Upload);
                }
                if let Some(rest) = path.strip_prefix("push/") {
                    return push(rest).unwrap_or(Self::Unknown);
                }
                if let Some(hash) = path.strip_suffix(".narinfo") {
                    return StorePathHash::parse(hash).map_or(Self::Unknown, Self::NarInfo);
                }
                if let Some(hash) = path.strip_suffix(".ls") {
                    return StorePathHash::parse(hash).map_or(Self::Unknown, Self::Listing);
                }
                let item = |text: &str| StorePath::from_base_name(directory, &percent_decode(text)?).ok();
                let found = if let Some(rest) = path.strip_prefix("nar/") {
                    nar(directory, rest)
                } else if let Some(rest) = path.strip_prefix("log/") {
                    match rest.strip_prefix("attempt/") {
                        Some(number) => decimal(number).map(Self::AttemptLog),
                        None => item(rest).map(Self::Log),
                    }
                } else if let Some(rest) = path.strip_prefix("file/") {
                    fixed_file(directory, rest)
                } else if let Some(rest) = path.strip_prefix("product/") {
                    product(rest)
                } else {
                    path.strip_prefix("identity/").and_then(Nonce::parse).map(Self::Identity)
                };
                found.unwrap_or(Self::Unknown)
            }
        }
    }
}

/// Gives the URL, relative to the server, under which an item of the store is served uncompressed. It follows from
/// the path and its content alone, so that a client may remember it.
pub(super) fn store_nar_url(hash: &StorePathHash, nar_hash: &NarHash) -> String {
    format!("nar/{hash}-{}.nar", nar_hash.to_base32())
}

fn nar(directory: &StoreDirectory, rest: &str) -> Option<Route> {
    let rest = percent_decode(rest)?;
    if let Some((compression, item)) = rest.split_once('/') {
        let compression = match compression {
            "none" => Compression::None,
            "gzip" => Compression::Gzip,
            "zstd" => Compression::Zstd,
            _ => return None,
        };
        return StorePath::from_base_name(directory, item).ok().map(|item| Route::ItemNar(compression, item));
    }
    match StorePath::from_base_name(directory, &rest) {
        Ok(item) => Some(store_nar(&item).unwrap_or(Route::ItemNar(Compression::None, item))),
        Err(_) => Some(Route::CachedNar(rest)),
    }
}

/// Names what is uploaded.
fn upload(rest: &str) -> Option<UploadName> {
    let (number, file) = rest.split_once('/')?;
    let (hash, part) = match file.strip_suffix(".narinfo") {
        Some(hash) => (hash, Part::NarInfo),
        None => (file.strip_suffix(".nar")?, Part::Nar),
    };
    let plain = number.bytes().all(|byte| byte.is_ascii_digit());
    let number = plain.then(|| number.parse().ok()).flatten()?;
    Some(UploadName { number, hash: StorePathHash::parse(hash).ok()?, part })
}

/// Names what of a push comes or is asked.
fn push(rest: &str) -> Option<Route> {
    let (evaluation, part) = rest.split_once('/')?;
    let part = match part {
        "missing" => PushPart::Question(Question::Missing),
        "available" => PushPart::Question(Question::Available),
        _ => PushPart::Parcel(ParcelName::parse(part.strip_prefix("parcel/")?)?),
    };
    Some(Route::Push(decimal(evaluation)?, part))
}

/// Finds the store path of a file by its name and the hash of its content.
fn fixed_file(directory: &StoreDirectory, rest: &str) -> Option<Route> {
    let (name, hash) = rest.split_once("/sha256/")?;
    let sha256 = Sha256::parse(hash).ok()?;
    let path = StorePath::of_fixed_output(directory, &percent_decode(name)?, false, &sha256.into()).ok()?;
    Some(Route::File(path, sha256))
}

/// Reads the hash of a product, which is written in one way, and the name it is to be kept under.
fn product(rest: &str) -> Option<Route> {
    let (hash, name) = rest.split_once('/')?;
    let sha256 = Sha256::parse(hash).ok().filter(|sha256| sha256.to_base32() == hash)?;
    Some(Route::Product(sha256, parse_file_name(name)?))
}

/// Recognizes `HASH-NARHASH.nar`, which is also of the form of a base name. An item that is really named so is still
/// to be had under its `/nar/none/…`.
fn store_nar(item: &StorePath) -> Option<Route> {
    let digits = item.name().strip_suffix(".nar").filter(|digits| digits.len() == SHA256_DIGITS)?;
    let nar_hash = NarHash::parse(digits).ok()?;
    Some(Route::StoreNar(item.hash(), nar_hash))
}

/// Reads a number without sign or leading zeros.
fn decimal(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| is_plain)
}

/// Undoes percent-encoding. Nothing for a malformed one, and for bytes that are not ASCII.
fn percent_decode(text: &str) -> Option<String> {
    let mut decoded = String::with_capacity(text.len().min(store_path::HASH_LENGTH + 1 + 211));
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let byte = if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            u8::try_from(digit(bytes.next())? * 16 + digit(bytes.next())?).ok()?
        } else {
            byte
        };
        if !byte.is_ascii_graphic() {
            return None;
        }
        decoded.push(char::from(byte));
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{describe::item_nar_url, products::encode_file_name};

    const HASH: &str = "x73mwwgn48z7flxzwmsfk9d0fnjcbcj0";
    const NAR_HASH: &str = "1impfw8zdgisxkghq9a3q7cn7jb9zyzgxdydiamp8z2nlyyl0h5h";

    fn check(path: &str, expected: &Route) {
        assert_eq!(&Route::parse(&StoreDirectory::nix(), path), expected, "{path}");
    }

    #[test]
    fn known_paths() {
        let hash = StorePathHash::parse(HASH).unwrap();
        let item = StorePath::from_base_name(&StoreDirectory::nix(), &format!("{HASH}-a?b")).unwrap();
        check("/", &Route::Home);
        check("/nix-cache-info", &Route::CacheInfo);
        check(&format!("/{HASH}.narinfo"), &Route::NarInfo(hash));
        check(&format!("/{HASH}.ls"), &Route::Listing(hash));
        let nar_hash = NarHash::parse(NAR_HASH).unwrap();
        check(&format!("/{}", store_nar_url(&hash, &nar_hash)), &Route::StoreNar(hash, nar_hash));
        check(&format!("/nar/{HASH}-a%3fb"), &Route::ItemNar(Compression::None, item.clone()));
        check(&format!("/nar/gzip/{HASH}-a%3Fb"), &Route::ItemNar(Compression::Gzip, item.clone()));
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let url = item_nar_url(&compression, &item);
            check(&format!("/{url}"), &Route::ItemNar(compression, item.clone()));
        }
        check(&format!("/nar/{NAR_HASH}.nar.xz"), &Route::CachedNar(format!("{NAR_HASH}.nar.xz")));
        check(&format!("/log/{HASH}-a%3Fb"), &Route::Log(item));
        check("/log/attempt/4711", &Route::AttemptLog(4711));
        let product = Sha256::parse(NAR_HASH).unwrap();
        let name = "gr\u{fc}n 1.0.iso";
        let url = format!("/product/{NAR_HASH}/{}", encode_file_name(name));
        check(&url, &Route::Product(product, name.to_owned()));
        let name = |part| Route::Upload(UploadName { number: 7, hash, part });
        check(&format!("/upload/7/{HASH}.narinfo"), &name(Part::NarInfo));
        check(&format!("/upload/7/{HASH}.nar"), &name(Part::Nar));
        check("/push/7/missing", &Route::Push(7, PushPart::Question(Question::Missing)));
        check("/push/7/available", &Route::Push(7, PushPart::Question(Question::Available)));
        let parcel = ParcelName::of([]);
        let path = format!("/push/7/parcel/{}", parcel.as_str());
        check(&path, &Route::Push(7, PushPart::Parcel(parcel)));
    }

    #[test]
    fn hostile_paths() {
        for path in [
            "",
            "nix-cache-info",
            "//nix-cache-info",
            "/../etc/passwd",
            "/x.narinfo",
            "/../x73mwwgn48z7flxzwmsfk9d0fnjcbcj0.narinfo",
            "/x73mwwgn48z7flxzwmsfk9d0fnjcbcj0.narinfo/",
            "/nar/xz/x73mwwgn48z7flxzwmsfk9d0fnjcbcj0-a",
            "/nar/gzip/../../etc/passwd",
            "/nar/gzip/x73mwwgn48z7flxzwmsfk9d0fnjcbcj0-..%2fx",
            "/nar/%",
            "/nar/%4",
            "/nar/%zz",
            "/nar/%00",
            "/nar/%c3%a9",
            "/identity/short",
            "/log/",
            "/log/attempt/",
            "/log/attempt/0",
            "/log/attempt/+1",
            "/log/attempt/1/2",
            "/log/attempt/99999999999999999999",
            "/log/../../etc/passwd",
            "/log/%2e%2e%2fpasswd",
            "/product/1impfw8zdgisxkghq9a3q7cn7jb9zyzgxdydiamp8z2nlyyl0h5h",
            "/product/1impfw8zdgisxkghq9a3q7cn7jb9zyzgxdydiamp8z2nlyyl0h5h/",
            "/product/1impfw8zdgisxkghq9a3q7cn7jb9zyzgxdydiamp8z2nlyyl0h5h/..",
            "/product/1impfw8zdgisxkghq9a3q7cn7jb9zyzgxdydiamp8z2nlyyl0h5h/a%2fb",
            "/product/../a",
            "/product/tmp/a",
            "/push/7/",
            "/push/0/missing",
            "/push/7/parcel/",
            "/push/7/parcel/../../x",
            "/push/7/parcel/0000000000000000000000000000000000000000000000000000000000000../",
            "/upload/7/../8",
            "/upload/../7/x73mwwgn48z7flxzwmsfk9d0fnjcbcj0.nar",
            "/upload/+7/x73mwwgn48z7flxzwmsfk9d0fnjcbcj0.nar",
            "/upload//x73mwwgn48z7flxzwmsfk9d0fnjcbcj0.nar",
            "/upload/7/x73mwwgn48z7flxzwmsfk9d0fnjcbcj0",
        ] {
            check(path, &Route::Unknown);
        }
        check(&format!("/{}", "a".repeat(MAX_PATH)), &Route::Unknown);
    }

    proptest::proptest! {
        #[test]
        fn nothing_leaves_the_directories(path in "/(nar/|nar/gzip/|log/|)[ -~]{0,80}") {
            match Route::parse(&StoreDirectory::nix(), &path) {
                Route::CachedNar(name) => assert!(!name.contains('/') && !name.contains('\0')),
                Route::ItemNar(_, item) | Route::Log(item) => assert!(!item.base_name().contains('/')),
                _ => {}
            }
        }
    }
}
