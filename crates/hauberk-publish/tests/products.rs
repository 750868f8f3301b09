//! Build products: taken out of nars of a cache, and served.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod support;

use std::{
    fs,
    io::Write,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use hauberk_publish::{
    Cache, PublishConfig, Signer,
    cache::Pending,
    products::{ExtractError, Extracted, Limits, Pattern, Products, Refused, Unmet, extract},
};
use hauberk_store::{
    NarInfo, Sha256, StoreDirectory, StorePath, nar::Encoder, nar::Event, narinfo::Compression,
};
use support::{PlainStore, Server, key, path_in};

/// A cache with items, and a directory of products beside it.
struct Lab {
    folder: tempfile::TempDir,
    cache: Cache,
    products: Products,
    store: PlainStore,
    signer: Signer,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), &StoreDirectory::nix()).unwrap();
        let products = Products::open(&Products::beside(folder.path())).unwrap();
        Self { folder, cache, products, store: PlainStore::new(), signer: key("k-1").0 }
    }

    /// Puts an item into the cache, packed with zstd as most are.
    fn add(&self, name: &str, references: &[&StorePath], make: impl FnOnce(&Path)) -> StorePath {
        let path = self.store.add(name, references, make);
        self.put(&path, references, &self.store.nar(&path));
        path
    }

    fn put(&self, path: &StorePath, references: &[&StorePath], nar: &[u8]) {
        let names: Vec<_> = references.iter().map(|path| path.base_name()).collect();
        let text = format!(
            "StorePath: {path}\nURL: x\nCompression: none\nNarHash: {}\nNarSize: {}\nReferences: {}\n",
            Sha256::digest(nar),
            nar.len(),
            names.join(" ")
        );
        let mut file = self.cache.begin().unwrap();
        file.write_all(&zstd::encode_all(nar, 1).unwrap()).unwrap();
        let narinfo = NarInfo::parse(&StoreDirectory::nix(), &text).unwrap();
        let pending = Pending::new(file.finish(Compression::Zstd), narinfo);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(self.cache.commit(vec![pending], &self.signer)).unwrap();
    }

    fn take(&self, output: &StorePath, patterns: &[&str], limits: Limits) -> Result<Extracted, ExtractError> {
        let wanted: Vec<Pattern> = patterns.iter().map(|text| text.parse().unwrap()).collect();
        extract(self.cache.reader(), &self.products, output, &wanted, limits, &|| true)
    }

    /// Takes files out, keeps them, and gives what each is wanted as, with its hash.
    fn found(&self, output: &StorePath, patterns: &[&str]) -> Vec<(usize, String, Sha256)> {
        let extracted = self.take(output, patterns, Limits::default()).unwrap();
        assert!(extracted.unmet.is_empty(), "{:?}", extracted.unmet);
        let mut found = Vec::new();
        for one in extracted.found {
            let sha256 = one.file.sha256;
            drop(self.products.keep([one.file]).unwrap());
            assert_eq!(Sha256::digest(&self.read(&sha256)), sha256);
            found.extend(one.names.into_iter().map(|(place, name)| (place, name, sha256)));
        }
        found.sort();
        found
    }

    fn read(&self, sha256: &Sha256) -> Vec<u8> {
        fs::read(self.products.directory().join(sha256.to_base32())).unwrap()
    }

    fn unmet(&self, output: &StorePath, pattern: &str) -> String {
        let extracted = self.take(output, &[pattern], Limits::default()).unwrap();
        assert!(extracted.found.is_empty());
        match &extracted.unmet[&0] {
            Unmet::Missing => "missing".to_owned(),
            Unmet::Refused(refused) => refused.to_string(),
        }
    }
}

fn files(top: &Path) {
    fs::create_dir_all(top.join("iso/old")).unwrap();
    fs::write(top.join("iso/a.iso"), "image a").unwrap();
    fs::write(top.join("iso/b.iso"), vec![7; 1 << 20]).unwrap();
    fs::write(top.join("iso/a.iso.sha256"), "sum").unwrap();
    fs::write(top.join("iso/old/c.iso"), "image c").unwrap();
    fs::write(top.join("iso/.hidden.iso"), "no").unwrap();
    symlink("a.iso", top.join("iso/latest.iso")).unwrap();
    symlink("iso", top.join("images")).unwrap();
}

fn name(place: usize, name: &str, bytes: impl AsRef<[u8]>) -> (usize, String, Sha256) {
    (place, name.to_owned(), Sha256::digest(bytes.as_ref()))
}

#[test]
fn files_are_found_by_their_names() {
    let lab = Lab::new();
    let output = lab.add("image-1.0", &[], files);
    assert_eq!(
        lab.found(&output, &["iso/*.iso", "iso/a.iso", "*/old/?.iso"]),
        [
            name(0, "iso/a.iso", "image a"),
            name(0, "iso/b.iso", vec![7; 1 << 20]),
            name(0, "iso/latest.iso", "image a"),
            name(1, "iso/a.iso", "image a"),
            name(2, "images/old/c.iso", "image c"),
            name(2, "iso/old/c.iso", "image c"),
        ]
    );
    assert_eq!(lab.found(&output, &["images/latest.iso"]), [name(0, "images/latest.iso", "image a")]);
    for absent in ["iso/d.iso", "iso/a.iso/x", "x/*", "ISO/*.iso"] {
        assert_eq!(lab.unmet(&output, absent), "missing");
    }
    // What is found makes up for what is not.
    let extracted = lab.take(&output, &["iso/a.iso", "absent"], Limits::default()).unwrap();
    assert_eq!((extracted.found.len(), extracted.unmet.len()), (1, 1));
    assert_eq!(extracted.unmet[&1], Unmet::Missing);
}

#[test]
fn an_output_that_is_a_file_is_a_product() {
    let lab = Lab::new();
    let image = lab.add("disk.qcow2", &[], |file| fs::write(file, "disk").unwrap());
    assert_eq!(lab.found(&image, &[""]), [name(0, "", "disk")]);
    assert_eq!(lab.unmet(&image, "x"), "missing");
    let link = lab.add("result", &[&image], |file| symlink(image.to_string(), file).unwrap());
    assert_eq!(lab.found(&link, &[""]), [name(0, "", "disk")]);
    let target = format!("../store/{}", image.base_name());
    let relative = lab.add("relative", &[&image], |file| symlink(image.base_name(), file).unwrap());
    assert_eq!(lab.found(&relative, &[""]), [name(0, "", "disk")]);
    let above = lab.add("above", &[&image], |file| symlink(&target, file).unwrap());
    assert!(lab.unmet(&above, "").contains("which is not in the store"));
}

#[test]
fn directories_become_the_archives_that_gnu_tar_makes() {
    let lab = Lab::new();
    let output = lab.add("doc-1.0", &[], files);
    let tar = |directory: &Path, name: &str, rename: &str| {
        let made = Command::new("tar")
            .args(["--format=gnu", "--sort=name", "--mtime=@1", "--owner=0", "--group=0", "--numeric-owner"])
            .arg(format!("--transform=flags=r;s,^{name},{rename},"))
            .args(["-cf", "-", name])
            .current_dir(directory)
            .output()
            .unwrap();
        assert!(made.status.success());
        made.stdout
    };
    let place = lab.store.file(&output);
    let whole = tar(place.parent().unwrap(), output.base_name(), "doc-1.0");
    let part = tar(&place, "iso", "iso");
    let inner = tar(&place.join("iso"), "old", "old");
    assert_eq!(
        lab.found(&output, &["", "iso", "iso/*/", "iso/old"].map(|text| text.trim_end_matches('/'))),
        [
            name(0, "", whole),
            name(1, "iso", part),
            name(2, "iso/a.iso", "image a"),
            name(2, "iso/a.iso.sha256", "sum"),
            name(2, "iso/b.iso", vec![7; 1 << 20]),
            name(2, "iso/latest.iso", "image a"),
            name(2, "iso/old", &inner),
            name(3, "iso/old", &inner),
        ]
    );
}

#[test]
fn links_are_followed_only_where_the_output_leads() {
    let lab = Lab::new();
    let other = lab.add("other", &[], files);
    let stranger = lab.add("stranger", &[], |file| fs::write(file, "secret").unwrap());
    let gone = lab.store.add("gone", &[], |file| fs::write(file, "x").unwrap());
    let output = lab.add("links", &[&other, &gone], |top| {
        fs::create_dir(top).unwrap();
        let link = |name: &str, target: String| symlink(target, top.join(name)).unwrap();
        link("file", format!("{other}/iso/a.iso"));
        link("through", format!("{other}/images"));
        link("beside", format!("../{}/iso/a.iso", other.base_name()));
        link("stranger", stranger.to_string());
        link("gone", gone.to_string());
        link("passwd", "/etc/passwd".to_owned());
        link("up", "../../../etc/passwd".to_owned());
        link("store", "..".to_owned());
        link("loop", "loop".to_owned());
        link("ring", "./ring2/x".to_owned());
        link("ring2", "ring".to_owned());
        link("dangling", "nothing".to_owned());
        link("prefix", "/nix/store-of-another/x".to_owned());
    });
    assert_eq!(
        lab.found(&output, &["file", "through/*.iso", "beside"]),
        [
            name(0, "file", "image a"),
            name(1, "through/a.iso", "image a"),
            name(1, "through/b.iso", vec![7; 1 << 20]),
            name(1, "through/latest.iso", "image a"),
            name(2, "beside", "image a"),
        ]
    );
    for (link, wanted) in [
        ("stranger", "which the output does not refer to"),
        ("gone", "which is not in the cache"),
        ("passwd", "`passwd` is a symbolic link to /etc/passwd, which is not in the store"),
        ("up", "which is not in the store"),
        ("store", "to the store itself"),
        ("loop", "that leads on too often"),
        ("ring", "that leads on too often"),
        ("prefix", "which is not in the store"),
        ("dangling", "missing"),
    ] {
        let unmet = lab.unmet(&output, link);
        assert!(unmet.contains(wanted), "{link}: {unmet}");
    }
}

#[test]
fn what_is_too_much_is_refused() {
    let lab = Lab::new();
    let output = lab.add("image", &[], files);
    let small = Limits { size: 100, ..Limits::default() };
    let extracted = lab.take(&output, &["iso/[ab].iso", "iso/?.iso", "iso/old", ""], small).unwrap();
    let names: Vec<_> = extracted.found.iter().flat_map(|found| &found.names).collect();
    assert_eq!(names, [&(1, "iso/a.iso".to_owned())]);
    let refused = |path: &str| Refused::TooLarge { path: path.to_owned(), limit: 100 };
    assert_eq!(
        extracted.unmet.into_iter().collect::<Vec<_>>(),
        [(0, Unmet::Missing), (2, Unmet::Refused(refused("iso/old"))), (3, Unmet::Refused(refused("")))]
    );
    assert!(extracted.refused.contains(&(1, refused("iso/b.iso"))));

    let few = Limits { files: 2, ..Limits::default() };
    let extracted = lab.take(&output, &["iso/*"], few).unwrap();
    assert_eq!(extracted.found.len(), 2);
    assert!(extracted.refused.contains(&(0, Refused::TooMany { limit: 2 })));
}

#[test]
fn a_nar_that_is_not_what_the_cache_says_gives_nothing() {
    let lab = Lab::new();
    let output = lab.add("image", &[], files);
    let narinfo = lab.cache.narinfo(&output.hash()).unwrap().unwrap();
    let file = lab.folder.path().join(&narinfo.urls[0].url);
    let mut nar = zstd::decode_all(&fs::read(&file).unwrap()[..]).unwrap();
    // The very last bytes of the nar.
    let end = nar.len() - 1;
    nar[end] ^= 1;
    fs::write(&file, zstd::encode_all(&nar[..], 1).unwrap()).unwrap();
    lab.take(&output, &["iso/a.iso"], Limits::default()).unwrap_err();
    fs::remove_file(&file).unwrap();
    lab.take(&output, &["iso/a.iso"], Limits::default()).unwrap_err();
    let absent = path_in(&StoreDirectory::nix(), "absent");
    let error = lab.take(&absent, &[""], Limits::default()).unwrap_err();
    assert!(matches!(error, ExtractError::Absent(_)), "{error}");
    assert!(lab.products.inventory().unwrap().is_empty());
}

#[test]
fn names_that_are_no_text_are_archived_as_they_are() {
    let lab = Lab::new();
    let mut nar = Vec::new();
    let mut encoder = Encoder::new(&mut nar);
    for event in [
        Event::Directory,
        Event::Entry { name: b"a\nb" },
        Event::File { executable: false, size: 1 },
        Event::Contents(b"x"),
        Event::EndFile,
        Event::Entry { name: b"\xff*" },
        Event::Symlink { target: b"\xfe" },
        Event::EndDirectory,
        Event::End,
    ] {
        encoder.event(event).unwrap();
    }
    drop(encoder);
    let output = path_in(&StoreDirectory::nix(), "odd");
    lab.put(&output, &[], &nar);
    let found = lab.found(&output, &["", "*"]);
    assert_eq!(found[1], name(1, "a\nb", "x"));
    let list = Command::new("tar")
        .args(["-t", "--quoting-style=escape"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .and_then(|mut tar| {
            tar.stdin.take().unwrap().write_all(&lab.read(&found[0].2))?;
            tar.wait_with_output()
        });
    assert_eq!(String::from_utf8(list.unwrap().stdout).unwrap(), "odd/\nodd/a\\nb\nodd/\\377*\n");
}

#[test]
fn products_are_served_to_be_kept() {
    let lab = Lab::new();
    let output = lab.add("image", &[], |file| fs::write(file, vec![b'x'; 100_000]).unwrap());
    let found = lab.take(&output, &[""], Limits::default()).unwrap().found.pop().unwrap();
    let sha256 = found.file.sha256;
    drop(lab.products.keep([found.file]).unwrap());
    let mut config = PublishConfig::new(StoreDirectory::nix());
    config.products = Some(lab.products);
    let server = Server::start(config);
    let url = format!("/product/{}/system%201.0.html", sha256.to_base32());
    let whole = server.get(&url);
    assert_eq!((whole.status, whole.body.len()), (200, 100_000));
    for (field, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("content-disposition", "attachment; filename=\"system 1.0.html\""),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'none'; sandbox"),
        ("accept-ranges", "bytes"),
        ("content-length", "100000"),
        ("etag", &format!("\"{}\"", sha256.to_base32())),
    ] {
        assert_eq!(whole.header(field).as_deref(), Some(value));
    }
    let part = server.request(&format!(
        "GET {url} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nRange: bytes=99990-\r\n\r\n"
    ));
    assert_eq!((part.status, part.body.len()), (206, 10));
    assert_eq!(part.header("content-range").as_deref(), Some("bytes 99990-99999/100000"));
    let tag = whole.header("etag").unwrap();
    let again = server.request(&format!(
        "GET {url} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nIf-None-Match: {tag}\r\n\r\n"
    ));
    assert_eq!((again.status, again.body.len()), (304, 0));
    let beyond = server.request(&format!(
        "GET {url} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nRange: bytes=100000-\r\n\r\n"
    ));
    assert_eq!(beyond.status, 416);
    for missing in [
        format!("/product/{}/a", Sha256::digest(b"absent").to_base32()),
        format!("/product/{}/a%2f..", sha256.to_base32()),
        format!("/product/{}", sha256.to_base32()),
        "/product/tmp/x".to_owned(),
    ] {
        assert_eq!(server.get(&missing).status, 404, "{missing}");
    }
}

const CHILD: &str = "HAUBERK_TEST_PRODUCTS";

/// Not a test of its own: takes products out of an output, again and again, until it is killed.
#[test]
fn child_that_takes_products() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let folder = Path::new(&folder);
    let cache = Cache::open_existing(folder).unwrap();
    let products = Products::open(&Products::beside(folder)).unwrap();
    let hash = *cache.reader().hashes().unwrap().iter().next().unwrap();
    let output = cache.narinfo(&hash).unwrap().unwrap().store_path;
    loop {
        let wanted = ["iso/*", ""].map(|text| text.parse().unwrap());
        let extracted =
            extract(cache.reader(), &products, &output, &wanted, Limits::default(), &|| true).unwrap();
        let kept: Vec<_> = extracted.found.into_iter().map(|found| found.file).collect();
        let hashes: Vec<_> = kept.iter().map(|file| file.sha256).collect();
        drop(products.keep(kept).unwrap());
        hashes.iter().for_each(|sha256| products.remove(sha256).unwrap());
    }
}

#[test]
fn a_killed_process_leaves_no_half_product() {
    let lab = Lab::new();
    lab.add("image", &[], files);
    let mut seen = 0;
    for round in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_takes_products", "--nocapture"])
            .env(CHILD, lab.folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(60 + 17 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        for product in lab.products.inventory().unwrap() {
            assert!(lab.products.is_intact(&product.sha256).unwrap());
            seen += 1;
        }
        // What was left is removed by the next to open it; what this process holds is not.
        let reopened = Products::open(lab.products.directory()).unwrap();
        let tmp = fs::read_dir(lab.products.directory().join("tmp")).unwrap().count();
        assert_eq!(tmp, 2, "this process has it open twice");
        drop(reopened);
    }
    // It was killed at all sorts of moments: sometimes there is something, and that is whole.
    eprintln!("{seen} products were there");
}
