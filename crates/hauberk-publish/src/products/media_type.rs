//! The types of files, by their names.

/// Types by the last part of a name, in lower case.
const TYPES: &[(&str, &str)] = &[
    ("7z", "application/x-7z-compressed"),
    ("apk", "application/vnd.android.package-archive"),
    ("bz2", "application/x-bzip2"),
    ("cpio", "application/x-cpio"),
    ("css", "text/css; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("deb", "application/vnd.debian.binary-package"),
    ("epub", "application/epub+zip"),
    ("exe", "application/vnd.microsoft.portable-executable"),
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("htm", "text/html; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("img", "application/octet-stream"),
    ("iso", "application/vnd.efi.iso"),
    ("jar", "application/java-archive"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("log", "text/plain; charset=utf-8"),
    ("lz", "application/x-lzip"),
    ("md", "text/markdown; charset=utf-8"),
    ("msi", "application/x-msi"),
    ("nar", "application/x-nix-nar"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("ps", "application/postscript"),
    ("rpm", "application/x-rpm"),
    ("sig", "application/pgp-signature"),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("tgz", "application/gzip"),
    ("toml", "application/toml"),
    ("txt", "text/plain; charset=utf-8"),
    ("wasm", "application/wasm"),
    ("webp", "image/webp"),
    ("whl", "application/zip"),
    ("xml", "application/xml"),
    ("xz", "application/x-xz"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("zip", "application/zip"),
    ("zst", "application/zstd"),
];

/// Gives the type of a file by its name; `application/octet-stream` where that does not tell.
pub fn media_type(file_name: &str) -> &'static str {
    let ending = file_name.rsplit_once('.').map_or("", |(_, ending)| ending).to_ascii_lowercase();
    let found = TYPES.binary_search_by_key(&ending.as_str(), |(known, _)| known);
    found.map_or("application/octet-stream", |place| TYPES[place].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_tell() {
        assert!(TYPES.is_sorted_by_key(|(ending, _)| ending));
        for (name, expected) in [
            ("guix-system.ISO", "application/vnd.efi.iso"),
            ("a.tar.gz", "application/gzip"),
            ("a.tar", "application/x-tar"),
            ("image.qcow2", "application/octet-stream"),
            ("README", "application/octet-stream"),
            ("iso", "application/octet-stream"),
            ("a.", "application/octet-stream"),
        ] {
            assert_eq!(media_type(name), expected, "{name}");
        }
    }
}
