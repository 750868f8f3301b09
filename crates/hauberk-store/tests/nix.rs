//! The stock Nix client against our formats: each reads what the other writes.
//!
//! Skipped, with a word on standard error, where `nix-store` and `nix` are not installed.

#![expect(clippy::unwrap_used, reason = "a test may end in a panic")]

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use hauberk_store::{
    Derivation, NarInfo, StoreDirectory, StorePath,
    cache_info::CacheInfo,
    derivation::VerifiedClosure,
    export::{self, Event},
    hash::{Algorithm, Hash},
    nar::{HashingWriter, Limits, NarSummary, Verifier, restore, write_path},
    narinfo::{Compression, NarUrl},
    signature::nix::{PublicKey, SecretKey},
    store_path::References,
};

/// A Nix of its own: a store below a temporary directory, without a daemon.
struct Nix {
    root: tempfile::TempDir,
}

impl Nix {
    /// Starts with an empty store, or not at all where Nix is not installed.
    fn new() -> Option<Self> {
        let found = Command::new("nix-store").arg("--version").stdout(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            eprintln!("skipped: nix-store is not installed");
            return None;
        }
        let nix = Self { root: tempfile::tempdir().unwrap() };
        for name in ["home", "etc", "work"] {
            fs::create_dir(nix.path(name)).unwrap();
        }
        Some(nix)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let store = format!("local?root={}", self.root.path().display());
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.path("home"))
            .env("NIX_CONF_DIR", self.path("etc"))
            .env("NIX_REMOTE", store)
            .env(
                "NIX_CONFIG",
                "experimental-features = nix-command\nsubstituters =\nbuild-users-group =\nsandbox = false\n",
            )
            .current_dir(self.path("work"))
            .stdin(Stdio::null());
        command
    }

    fn try_run(&self, program: &str, args: &[&str]) -> Output {
        self.command(program).args(args).output().unwrap()
    }

    /// Runs a program that must succeed, and gives its output without the line end.
    fn run(&self, program: &str, args: &[&str]) -> String {
        let output = self.try_run(program, args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {args:?}: {errors}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Gives where a store path really is.
    fn real(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    /// Adds a tree and gives its path.
    fn add(&self, tree: &Path) -> String {
        self.run("nix-store", &["--add", tree.to_str().unwrap()])
    }
}

/// Makes a tree with something of everything.
fn make_tree(directory: &Path) {
    fs::create_dir_all(directory.join("bin/empty")).unwrap();
    fs::write(directory.join("bin/run"), "#!/bin/sh\necho run\n").unwrap();
    fs::set_permissions(directory.join("bin/run"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(directory.join("empty"), "").unwrap();
    fs::write(directory.join("B"), "upper case").unwrap();
    fs::write(directory.join("café"), [0xff; 17]).unwrap();
    fs::write(directory.join("large"), vec![b'x'; 1_000_001]).unwrap();
    symlink("../else/where", directory.join("link")).unwrap();
}

fn summary(path: &Path) -> NarSummary {
    let mut writer = HashingWriter::new(io::sink());
    write_path(path, &mut writer).unwrap();
    writer.finish().1
}

#[test]
fn nars_are_the_same() {
    let Some(nix) = Nix::new() else { return };
    let tree = nix.path("work/tree");
    make_tree(&tree);
    for path in [tree.clone(), tree.join("bin/run"), tree.join("link"), tree.join("empty")] {
        let dumped = nix.command("nix-store").arg("--dump").arg(&path).output().unwrap().stdout;
        let mut ours = Vec::new();
        write_path(&path, &mut ours).unwrap();
        assert!(ours == dumped, "{}", path.display());

        let restored = nix.path("work/restored");
        restore(&dumped[..], &restored, Limits::default()).unwrap();
        assert_eq!(summary(&restored), summary(&path));

        let theirs = nix.path("work/theirs");
        let mut child =
            nix.command("nix-store").arg("--restore").arg(&theirs).stdin(Stdio::piped()).spawn().unwrap();
        io::copy(&mut &ours[..], child.stdin.as_mut().unwrap()).unwrap();
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        assert_eq!(summary(&theirs), summary(&path));
        for made in [restored, theirs] {
            let remove = if made.symlink_metadata().unwrap().is_dir() {
                fs::remove_dir_all
            } else {
                |path| fs::remove_file(path)
            };
            remove(made).unwrap();
        }
    }
}

#[test]
fn hashes_are_the_same() {
    let Some(nix) = Nix::new() else { return };
    let file = nix.path("work/file");
    fs::write(&file, "contents").unwrap();
    let file = file.to_str().unwrap();
    for algorithm in Algorithm::ALL {
        let hash = algorithm.hash(b"contents");
        let name = algorithm.as_str();
        assert_eq!(nix.run("nix-hash", &["--flat", "--type", name, file]), hash.to_base16());
        assert_eq!(nix.run("nix-hash", &["--flat", "--base32", "--type", name, file]), hash.to_base32());
        assert_eq!(nix.run("nix", &["hash", "file", "--sri", "--type", name, file]), hash.to_sri());
        assert_eq!(
            nix.run("nix-hash", &["--to-base16", "--type", name, &hash.to_base32()]),
            hash.to_base16()
        );
        assert_eq!(Hash::parse(&nix.run("nix", &["hash", "file", "--type", name, file])), Ok(hash));
    }
    let recursive = nix.run("nix-hash", &["--base32", "--type", "sha256", file]);
    assert_eq!(summary(Path::new(file)).hash.to_base32(), recursive);
}

#[test]
fn paths_are_the_same() {
    let Some(nix) = Nix::new() else { return };
    let directory = StoreDirectory::nix();
    let tree = nix.path("work/tree");
    make_tree(&tree);
    let ours = StorePath::of_source(&directory, "tree", &summary(&tree).hash, &References::default());
    assert_eq!(ours.unwrap().to_string(), nix.add(&tree));
    let file = tree.join("B");
    for algorithm in Algorithm::ALL {
        let args = ["--add-fixed", algorithm.as_str(), file.to_str().unwrap()];
        let hash = algorithm.hash(b"upper case");
        let ours = StorePath::of_fixed_output(&directory, "B", false, &hash).unwrap();
        assert_eq!(ours.to_string(), nix.run("nix-store", &args));
        let digest = hash.to_base32();
        let args = ["--print-fixed-path", "--recursive", algorithm.as_str(), &digest, "B"];
        let ours = StorePath::of_fixed_output(&directory, "B", true, &hash).unwrap();
        assert_eq!(ours.to_string(), nix.run("nix-store", &args));
    }
}

const EXPRESSION: &str = r#"
let
  base = { system = builtins.currentSystem; builder = "/bin/sh"; };
  source = builtins.toFile "builder.sh" "echo \"a\tb\" > $out\n";
  fixed = derivation (base // {
    name = "fixed"; outputHashMode = "flat"; outputHashAlgo = "md5"; outputHash = "d41d8cd98f00b204e9800998ecf8427e";
  });
  twin = derivation (base // {
    name = "fixed"; outputHashMode = "flat"; outputHashAlgo = "md5"; outputHash = "d41d8cd98f00b204e9800998ecf8427e"; x = "1";
  });
  multi = derivation (base // {
    name = "multi"; outputs = [ "out" "dev" "bin" ]; args = [ source ]; text = "\\ \" \n \r \t $x café"; inherit fixed twin;
  });
in derivation (base // {
  name = "top"; requiredSystemFeatures = [ "kvm" "big-parallel" ]; timeout = 60; preferLocalBuild = true;
  args = [ multi.dev multi.bin fixed twin ];
})
"#;

#[test]
fn derivations_are_the_same() {
    let Some(nix) = Nix::new() else { return };
    fs::write(nix.path("work/top.nix"), EXPRESSION).unwrap();
    let top = nix.run("nix-instantiate", &["top.nix"]);
    let closure = nix.run("nix-store", &["--query", "--requisites", &top]);
    let mut verified = VerifiedClosure::new();
    let mut count = 0;
    // Requisites come in order: what is needed first.
    for path in closure.lines().filter(|path| path.ends_with(".drv")) {
        let bytes = fs::read(nix.real(path)).unwrap();
        let derivation = verified.add(&path.parse().unwrap(), &bytes).unwrap();
        assert!(derivation.to_bytes() == bytes, "{path}");
        count += 1;
    }
    assert_eq!(count, 4);
    let derivation = Derivation::parse(&StoreDirectory::nix(), &fs::read(nix.real(&top)).unwrap()).unwrap();
    assert_eq!(derivation.required_system_features(), ["big-parallel", "kvm"].map(str::to_owned).into());
    assert_eq!(derivation.timeout().map(|limit| limit.as_secs()), Some(60));
    assert!(derivation.prefers_local_build());
}

#[test]
fn keys_and_signatures_are_the_same() {
    let Some(nix) = Nix::new() else { return };
    nix.run("nix-store", &["--generate-binary-cache-key", "theirs-1", "theirs.sec", "theirs.pub"]);
    let read = |name: &str| fs::read_to_string(nix.path("work").join(name)).unwrap();
    let theirs = SecretKey::parse(&read("theirs.sec")).unwrap();
    assert_eq!(theirs.public_key().to_string(), read("theirs.pub").trim());
    assert_eq!(*theirs.to_secret_string(), read("theirs.sec").trim());
    let ours = SecretKey::generate("ours-1").unwrap();
    fs::write(nix.path("work/ours.sec"), ours.to_secret_string().as_bytes()).unwrap();

    let tree = nix.path("work/tree");
    make_tree(&tree);
    let path = nix.add(&tree);
    for name in ["theirs.sec", "ours.sec"] {
        let cache = format!("file://{}?compression=none&secret-key={name}", nix.path("work/cache").display());
        nix.run("nix", &["copy", "--to", &cache, &path]);
        let hash = StorePath::parse(&path).unwrap().hash();
        let text = read(&format!("cache/{hash}.narinfo"));
        let info = NarInfo::parse(&StoreDirectory::nix(), &text).unwrap();
        let key = if name == "ours.sec" { &ours } else { &theirs };
        let mut again = info.clone();
        again.signatures.clear();
        again.sign(key);
        assert!(info.signatures.contains(&again.signatures[0]), "{text}");
        assert_eq!(info.verify(&[key.public_key()]), Some(&key.public_key()));
        fs::remove_dir_all(nix.path("work/cache")).unwrap();
    }
}

/// Undoes a compression as a stream.
fn decompress(compression: &Compression, bytes: fs::File) -> Box<dyn Read> {
    match compression {
        Compression::None => Box::new(bytes),
        Compression::Zstd => Box::new(zstd::Decoder::new(bytes).unwrap()),
        Compression::Xz => Box::new(lzma_rust2::XzReader::new(bytes, true)),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
        other => panic!("{other}"),
    }
}

#[test]
fn what_nix_copies_is_read() {
    let Some(nix) = Nix::new() else { return };
    let tree = nix.path("work/tree");
    make_tree(&tree);
    let path = StorePath::parse(&nix.add(&tree)).unwrap();
    for compression in ["xz", "zstd", "gzip", "none"] {
        let cache = nix.path(&format!("work/cache-{compression}"));
        let url = format!("file://{}?compression={compression}&write-nar-listing=true", cache.display());
        nix.run("nix", &["copy", "--no-check-sigs", "--to", &url, &path.to_string()]);
        let info = CacheInfo::parse(&fs::read_to_string(cache.join("nix-cache-info")).unwrap()).unwrap();
        assert_eq!(info.store_directory, StoreDirectory::nix());
        let text = fs::read_to_string(cache.join(format!("{}.narinfo", path.hash()))).unwrap();
        let info = NarInfo::parse(&StoreDirectory::nix(), &text).unwrap();
        assert_eq!(info.to_string(), text);
        let [url] = &info.urls[..] else { panic!("{text}") };
        let file = fs::read(cache.join(&url.url)).unwrap();
        assert_eq!(url.file_size, Some(file.len() as u64));
        assert_eq!(url.file_hash, Some(Algorithm::Sha256.hash(&file)));
        let mut verifier = Verifier::new(Limits::with_size(info.nar_size));
        let mut nar = Vec::new();
        decompress(&url.compression, fs::File::open(cache.join(&url.url)).unwrap())
            .read_to_end(&mut nar)
            .unwrap();
        verifier.push(&nar).unwrap();
        let found = verifier.finish().unwrap();
        assert_eq!((found.hash, found.size), (info.nar_hash, info.nar_size), "{compression}");
        assert_eq!(found, summary(&tree));
    }
}

#[test]
fn what_nix_exports_is_read_and_the_other_way() {
    let Some(nix) = Nix::new() else { return };
    fs::write(nix.path("work/top.nix"), EXPRESSION).unwrap();
    let top = nix.run("nix-instantiate", &["top.nix"]);
    let closure = nix.run("nix-store", &["--query", "--requisites", &top]);
    let paths: Vec<_> = closure.lines().collect();
    let exported = nix.command("nix-store").arg("--export").args(&paths).output().unwrap().stdout;
    let mut decoder = export::Decoder::new(StoreDirectory::nix(), Limits::default());
    let (mut rest, mut nar, mut found) = (&exported[..], Vec::new(), Vec::new());
    let mut writer = export::ExportWriter::new(Vec::new());
    while let Some(event) = decoder.next(&mut rest).unwrap() {
        match event {
            Event::Nar(bytes) => nar.extend_from_slice(bytes),
            Event::Item(item) => {
                let mut again = writer.item().unwrap();
                io::copy(&mut &nar[..], &mut again).unwrap();
                again.finish(&item.item, None).unwrap();
                found.push(item.item.path.to_string());
                nar.clear();
            }
            Event::Begin | Event::End => {}
        }
    }
    decoder.finish().unwrap();
    assert_eq!(found.iter().map(String::as_str).collect::<BTreeSet<_>>(), paths.iter().copied().collect());
    assert!(writer.finish().unwrap() == exported);
}

/// A binary cache in a directory, as our server would serve it.
struct Cache {
    directory: PathBuf,
    info: NarInfo,
    nar_file: PathBuf,
}

impl Cache {
    fn write(&self) {
        fs::write(
            self.directory.join(format!("{}.narinfo", self.info.store_path.hash())),
            self.info.to_string(),
        )
        .unwrap();
    }
}

/// Writes a cache with one item that refers to another, in the given compression, signed by two keys.
fn make_cache(nix: &Nix, name: &str, compression: &Compression, keys: &[&SecretKey]) -> (Cache, Cache) {
    let directory = nix.path(&format!("work/{name}"));
    fs::create_dir_all(directory.join("nar")).unwrap();
    let info =
        CacheInfo { store_directory: StoreDirectory::nix(), want_mass_query: true, priority: Some(30) };
    fs::write(directory.join("nix-cache-info"), info.to_string()).unwrap();
    let item = |hash: &str, item: &str, references: BTreeSet<StorePath>, deriver: bool| {
        let base_name = format!("{hash}-{item}");
        let store_path = StorePath::from_base_name(&StoreDirectory::nix(), &base_name).unwrap();
        let tree = nix.path(&format!("work/{name}-{item}"));
        make_tree(&tree);
        fs::write(tree.join("references"), format!("{references:?}")).unwrap();
        let mut nar = Vec::new();
        write_path(&tree, &mut nar).unwrap();
        let file = match compression {
            Compression::None => nar.clone(),
            Compression::Zstd => zstd::encode_all(&nar[..], 3).unwrap(),
            Compression::Gzip => {
                let mut bytes = Vec::new();
                flate2::read::GzEncoder::new(&nar[..], flate2::Compression::fast())
                    .read_to_end(&mut bytes)
                    .unwrap();
                bytes
            }
            other => panic!("{other}"),
        };
        let nar_file = directory.join("nar").join(&base_name);
        fs::write(&nar_file, &file).unwrap();
        let url = NarUrl {
            url: format!("nar/{base_name}"),
            compression: compression.clone(),
            file_size: Some(file.len() as u64),
            file_hash: Some(Algorithm::Sha256.hash(&file)),
        };
        let mut info = NarInfo {
            store_path,
            urls: vec![url],
            nar_hash: summary(&tree).hash,
            nar_size: nar.len() as u64,
            references,
            deriver: deriver.then(|| "/nix/store/3xf8zk4l1i608sa6k4m25y00ifnd5yma-x.drv".parse().unwrap()),
            system: None,
            signatures: Vec::new(),
            ca: None,
            unknown: vec![("X-Unknown".into(), "of no meaning".into())],
            guix_signature: None,
        };
        keys.iter().for_each(|key| info.sign(key));
        let cache = Cache { directory: directory.clone(), info, nar_file };
        cache.write();
        cache
    };
    let dependency = item("0d71ygfwbmy1xjlbj1v027dfmy9cqavy", "dependency", BTreeSet::new(), false);
    let references = [dependency.info.store_path.clone()].into();
    let top = item("x73mwwgn48z7flxzwmsfk9d0fnjcbcj0", "top", references, true);
    (dependency, top)
}

/// Lets Nix substitute the item, in a store of its own, and tells whether it did.
fn substitutes(cache: &Cache, key: &PublicKey) -> Result<(), String> {
    let Some(nix) = Nix::new() else { return Err("no Nix".into()) };
    let path = cache.info.store_path.to_string();
    let url = format!("file://{}", cache.directory.display());
    let key = key.to_string();
    let args =
        ["--realise", &path, "--option", "substituters", &url, "--option", "trusted-public-keys", &key];
    let output = nix.try_run("nix-store", &args);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(errors);
    }
    assert_eq!(summary(&nix.real(&path)).hash, cache.info.nar_hash);
    Ok(())
}

#[test]
fn nix_substitutes_what_we_write_and_refuses_what_is_tampered_with() {
    let Some(nix) = Nix::new() else { return };
    let keys = ["ours-1", "other-1"].map(|name| SecretKey::generate(name).unwrap());
    let trusted = keys[1].public_key();
    for (name, compression) in
        [("none", Compression::None), ("zstd", Compression::Zstd), ("gzip", Compression::Gzip)]
    {
        let (_, top) = make_cache(&nix, name, &compression, &[&keys[0], &keys[1]]);
        // Signed by either key, and not by a third one of the same name.
        assert_eq!(substitutes(&top, &trusted), Ok(()), "{name}");
        assert_eq!(substitutes(&top, &keys[0].public_key()), Ok(()), "{name}");
        let stranger = SecretKey::generate("ours-1").unwrap().public_key();
        assert!(substitutes(&top, &stranger).is_err(), "{name}");
    }

    let (dependency, mut top) = make_cache(&nix, "evil", &Compression::None, &[&keys[1]]);
    let good = top.info.clone();
    let refused = |top: &mut Cache, what: &str, change: &dyn Fn(&mut NarInfo)| {
        change(&mut top.info);
        assert_ne!(top.info, good, "{what}");
        top.write();
        assert!(substitutes(top, &trusted).is_err(), "{what}");
        assert_eq!(top.info.verify(std::slice::from_ref(&trusted)), None, "{what}");
        top.info = good.clone();
        top.write();
        assert_eq!(substitutes(top, &trusted), Ok(()));
    };
    refused(&mut top, "signature", &|info| {
        let text = info.signatures[0].to_string();
        let flipped = if text.contains(":A") {
            text.replacen(":A", ":B", 1)
        } else {
            format!("other-1:A{}", &text[9..])
        };
        info.signatures = vec![flipped.parse().unwrap()];
    });
    refused(&mut top, "hash", &|info| info.nar_hash = hauberk_store::Sha256::digest(b"other"));
    refused(&mut top, "size", &|info| info.nar_size += 8);
    refused(&mut top, "references", &|info| info.references.clear());

    for cache in [&dependency, &top] {
        let nar = fs::read(&cache.nar_file).unwrap();
        let at = nar.windows(10).position(|window| window == b"upper case").unwrap();
        let mut evil = nar.clone();
        evil[at] ^= 1;
        fs::write(&cache.nar_file, &evil).unwrap();
        assert!(substitutes(&top, &trusted).is_err(), "nar");
        fs::write(&cache.nar_file, &nar).unwrap();
    }
    assert_eq!(substitutes(&top, &trusted), Ok(()));
}
