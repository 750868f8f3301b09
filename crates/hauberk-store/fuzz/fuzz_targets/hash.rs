//! Every spelling of what is read reads the same; store paths too.
#![no_main]

use hauberk_store::{Hash, Sha256, StoreDirectory, StorePath, StorePathHash, base32, cache_info::CacheInfo};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(decoded) = base32::decode(bytes) {
        assert_eq!(base32::encode(&decoded).as_bytes(), bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(hash) = Hash::parse(text) {
        assert_eq!(Hash::parse(&hash.to_string()), Ok(hash));
        assert_eq!(Hash::parse(&hash.to_sri()), Ok(hash));
        assert_eq!(Hash::parse_digest(hash.algorithm(), &hash.to_base16()), Ok(hash));
    }
    let _ = Sha256::parse(text);
    let _ = StorePathHash::parse(text);
    if let Ok(path) = StorePath::parse(text) {
        assert_eq!(path.to_string(), text);
        assert_eq!(StorePath::parse_in(path.directory(), text).as_ref(), Ok(&path));
    }
    if let Ok(directory) = StoreDirectory::parse(text) {
        assert_eq!(directory.as_str(), text);
    }
    if let Ok(info) = CacheInfo::parse(text) {
        assert_eq!(CacheInfo::parse(&info.to_string()), Ok(info));
    }
});
