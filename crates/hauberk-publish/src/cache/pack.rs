//! From the local store into the cache.

use std::{
    fmt,
    io::{self, Read, Write},
    path::Path,
    str::FromStr,
};

use hauberk_daemon::PathInfo;
use hauberk_store::{Sha256, hash::Sha256Hasher, narinfo::Compression};

use super::{
    directory::Cache,
    error::CacheError,
    nar_file::{FinishedNar, NarFile},
    pending::Pending,
};
use crate::{describe::describe, stream::NarReader};

/// Bytes read and packed at a time.
const CHUNK: usize = 128 * 1024;

/// A way to pack nars: `none`, `gzip` or `zstd`, and with which effort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Not at all.
    None,
    /// With gzip, level 1 to 9.
    Gzip(u32),
    /// With zstd, level 1 to 22.
    Zstd(i32),
}

/// A text that names no way to pack nars.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no way to pack nars: give `none`, `gzip` or `zstd`, with `:LEVEL` (gzip 1 to 9, zstd 1 to 22) or without"
)]
pub struct UnknownMethod {
    /// The text given, cut after 100 characters.
    pub text: String,
}

impl Default for Method {
    /// Gives zstd with level 3: small enough, and as fast as most disks.
    fn default() -> Self {
        Self::Zstd(3)
    }
}

impl Method {
    /// Gives the name of the compression.
    pub const fn compression(self) -> Compression {
        match self {
            Self::None => Compression::None,
            Self::Gzip(_) => Compression::Gzip,
            Self::Zstd(_) => Compression::Zstd,
        }
    }
}

impl FromStr for Method {
    type Err = UnknownMethod;

    fn from_str(text: &str) -> Result<Self, UnknownMethod> {
        let unknown = || UnknownMethod { text: text.chars().take(100).collect() };
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level.parse::<u8>().map_err(|_| unknown())?)),
            None => (text, None),
        };
        match (name, level) {
            ("none", None) => Ok(Self::None),
            ("gzip", Some(level @ 1..=9)) => Ok(Self::Gzip(level.into())),
            ("gzip", None) => Ok(Self::Gzip(6)),
            ("zstd", Some(level @ 1..=22)) => Ok(Self::Zstd(level.into())),
            ("zstd", None) => Ok(Self::default()),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Gzip(level) => write!(f, "gzip:{level}"),
            Self::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

/// Packs what is written into it.
pub(crate) enum Encoder {
    None(NarFile),
    Gzip(flate2::write::GzEncoder<NarFile>),
    Zstd(zstd::Encoder<'static, NarFile>),
}

impl Encoder {
    /// Packs into `file`.
    pub(crate) fn new(method: Method, file: NarFile) -> io::Result<Self> {
        Ok(match method {
            Method::None => Self::None(file),
            Method::Gzip(level) => {
                Self::Gzip(flate2::write::GzEncoder::new(file, flate2::Compression::new(level)))
            }
            Method::Zstd(level) => Self::Zstd(zstd::Encoder::new(file, level)?),
        })
    }

    /// Packs more.
    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::None(file) => file.write_all(bytes),
            Self::Gzip(encoder) => encoder.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    /// Ends the file.
    pub(crate) fn finish(self) -> io::Result<FinishedNar> {
        Ok(match self {
            Self::None(file) => file.finish(Compression::None),
            Self::Gzip(encoder) => encoder.finish()?.finish(Compression::Gzip),
            Self::Zstd(encoder) => encoder.finish()?.finish(Compression::Zstd),
        })
    }
}

impl Cache {
    /// Packs an item of a local store in the default way. `info` is what the store's daemon says of it, and its files lie under
    /// `root` (usually `/`). The signatures the store keeps are kept.
    ///
    /// # Errors
    /// Files that cannot be read or are not what the store says, a cache that cannot take them.
    pub async fn pack(&self, info: &PathInfo, root: &Path) -> Result<Pending, CacheError> {
        let (cache, info) = (self.clone(), info.clone());
        let file = root.join(info.path.to_string().trim_start_matches('/'));
        let pack = move || cache.pack_blocking(&info, &file, &[Method::default()], &|| true);
        let packing = tokio::task::spawn_blocking(pack);
        packing.await.map_err(|_| CacheError::Stopped)?
    }

    /// Packs an item in each of several ways, reading it once, as long as `go_on` says so.
    pub(crate) fn pack_blocking(
        &self,
        info: &PathInfo,
        file: &Path,
        methods: &[Method],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Pending, CacheError> {
        let mut reader = NarReader::open(file).map_err(CacheError::io("open", file))?;
        let begin = |method: &Method| Encoder::new(*method, self.begin()?).map_err(CacheError::Write);
        let mut encoders = methods.iter().map(begin).collect::<Result<Vec<_>, _>>()?;
        let mut hasher = Sha256Hasher::new();
        let mut buffer = vec![0; CHUNK];
        loop {
            if !go_on() {
                return Err(CacheError::Stopped);
            }
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(CacheError::io("read", file)(error)),
            };
            hasher.update(&buffer[..count]);
            for encoder in &mut encoders {
                encoder.write_all(&buffer[..count]).map_err(CacheError::Write)?;
            }
        }
        let found: Sha256 = hasher.finish().0;
        if found != info.nar_hash {
            let (path, expected) = (info.path.clone(), info.nar_hash);
            return Err(CacheError::Damaged { path, expected, found });
        }
        let nars: Vec<FinishedNar> = encoders
            .into_iter()
            .map(Encoder::finish)
            .collect::<io::Result<_>>()
            .map_err(CacheError::Write)?;
        Ok(Pending::several(nars, describe(info)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_read() {
        for (text, method) in [
            ("none", Method::None),
            ("gzip", Method::Gzip(6)),
            ("gzip:9", Method::Gzip(9)),
            ("zstd", Method::Zstd(3)),
            ("zstd:19", Method::Zstd(19)),
        ] {
            assert_eq!(text.parse(), Ok(method));
            assert_eq!(method.to_string().parse(), Ok(method));
        }
        for text in ["", "xz", "gzip:0", "gzip:10", "zstd:23", "zstd:", "none:1", "zstd:-1", "zstd:300"] {
            text.parse::<Method>().unwrap_err();
        }
    }
}
