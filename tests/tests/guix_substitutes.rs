//! What real Guix makes of narinfos and nars as they are written here, whole and damaged.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use hauberk_daemon::{BuildDaemon, ClientOptions, ConnectOptions, Connection, log::Discard};
use hauberk_store::{
    NarHash, NarInfo, Sha256, StoreDirectory, StorePath,
    nar::Node,
    narinfo::{Compression, NarUrl},
    signature::guix::{Acl, PublicKey, SecretKey, SignatureLine},
};
use hauberk_tests::{
    GuixRoot, LabDirectory, Launch, Machine, MachineConfig, Process, hauberk_program, require_root,
};

/// Where the files are served, in the machine's own network.
const PORT: &str = "8099";

/// A directory served as it is, and the key that its narinfos are signed with.
struct Shelf<'d> {
    directory: &'d Path,
    key: SecretKey,
}

impl Shelf<'_> {
    /// Puts a path there; `change` may alter the text of the narinfo.
    fn put(
        &self,
        name: &str,
        compressions: &[Compression],
        references: &BTreeSet<StorePath>,
        change: impl FnOnce(&str) -> String,
    ) -> Result<StorePath> {
        let mut digest = [0; 20];
        digest.copy_from_slice(&Sha256::digest(name.as_bytes()).as_bytes()[..20]);
        let path = StorePath::from_digest(&StoreDirectory::guix(), &digest, name)?;
        let nar = Node::file(format!("contents of {name}\n").repeat(100)).to_nar()?;
        let mut urls = Vec::new();
        for compression in compressions {
            let url = format!("nar/{compression}/{}", path.base_name());
            let file = self.directory.join(&url);
            fs::create_dir_all(file.parent().context("it is in a directory")?)?;
            fs::write(&file, packed(compression, &nar, self.directory)?)?;
            urls.push(NarUrl { url, compression: compression.clone(), file_size: None, file_hash: None });
        }
        let mut narinfo = NarInfo {
            store_path: path.clone(),
            urls,
            nar_hash: NarHash::digest(&nar),
            nar_size: nar.len() as u64,
            references: references.clone(),
            deriver: None,
            system: None,
            signatures: Vec::new(),
            ca: None,
            unknown: Vec::new(),
            guix_signature: None,
        };
        narinfo.sign_guix("tests", &self.key);
        let file = self.directory.join(format!("{}.narinfo", path.hash_part()));
        fs::write(file, change(&narinfo.to_string()))?;
        Ok(path)
    }
}

fn packed(compression: &Compression, nar: &[u8], directory: &Path) -> Result<Vec<u8>> {
    if *compression == Compression::None {
        return Ok(nar.to_vec());
    }
    let plain = directory.join("plain");
    fs::write(&plain, nar)?;
    let output = Command::new("gzip").arg("-c").arg(&plain).output()?;
    ensure!(output.status.success(), "gzip fails");
    Ok(output.stdout)
}

/// Replaces what follows `mark` by `change` of it.
fn after(text: &str, mark: &str, change: impl FnOnce(&str) -> String) -> String {
    let (before, rest) = text.split_once(mark).expect("the mark is there");
    format!("{before}{mark}{}", change(rest))
}

/// Exchanges the first character for another one that is as good.
fn flip(text: &str) -> String {
    let first = if text.starts_with('1') { '2' } else { '1' };
    std::iter::once(first).chain(text.chars().skip(1)).collect()
}

fn serve(machine: &Machine, shelf: &Path, directory: &Path) -> Result<Process> {
    machine
        .command("/bin/busybox")
        .args(["httpd", "-f", "-p", PORT, "-h"])
        .arg(shelf)
        .start("httpd", directory)
}

#[tokio::test]
async fn whole_ones_are_taken_and_damaged_ones_are_not() -> Result<()> {
    for root in GuixRoot::all()? {
        require_root()?;
        let lab = LabDirectory::create()?;
        let config =
            MachineConfig { name: "user".to_owned(), guix: Some(root.clone()), ..MachineConfig::default() };
        let machine = Machine::start(lab.path(), &config)?;
        let directory = lab.subdirectory("shelf")?;
        let shelf = Shelf { directory: &directory, key: SecretKey::generate()? };
        fs::write(directory.join("nix-cache-info"), "StoreDir: /gnu/store\n")?;
        let acl: Acl = [shelf.key.public_key().clone()].into_iter().collect();
        fs::write(machine.outside("/etc/guix/acl"), acl.to_string())?;
        let mut web = serve(&machine, &directory, lab.path())?;

        let none = BTreeSet::new();
        let same = |text: &str| text.to_owned();
        let (plain, gzip) = ([Compression::None], [Compression::Gzip]);
        let low = shelf.put("low", &plain, &none, same)?;
        let high = shelf.put("high", &gzip, &BTreeSet::from([low.clone()]), same)?;
        let both = shelf.put("both", &[Compression::Gzip, Compression::None], &none, same)?;
        let signature = |text: &str| {
            let (signed, line) = text.split_once("Signature: ").expect("it is signed");
            let line = SignatureLine::parse(line.trim()).expect("it can be read");
            let other = SignatureLine::new("tests", &after(line.text(), "(s #", flip));
            format!("{signed}Signature: {other}\n")
        };
        let stranger = Shelf { directory: &directory, key: SecretKey::generate()? };
        let damaged = [
            ("signature", shelf.put("bad-signature", &plain, &none, signature)?),
            ("hash", shelf.put("bad-hash", &plain, &none, |text| after(text, "NarHash: sha256:", flip))?),
            ("size", shelf.put("bad-size", &plain, &none, |text| after(text, "NarSize: ", flip))?),
            ("references", {
                let more = format!("{} ", low.base_name());
                shelf.put("bad-references", &plain, &none, |text| {
                    after(text, "References: ", |rest| format!("{more}{rest}"))
                })?
            }),
            ("no signature", {
                shelf.put("unsigned", &plain, &none, |text| {
                    text.split_once("Signature: ").expect("it is signed").0.to_owned()
                })?
            }),
            ("key", stranger.put("strange", &plain, &none, same)?),
            ("nar", shelf.put("bad-nar", &plain, &none, same)?),
            ("packed nar", shelf.put("bad-packed", &gzip, &none, same)?),
        ];
        for (path, place) in [(&damaged[6].1, "none"), (&damaged[7].1, "gzip")] {
            let file = directory.join("nar").join(place).join(path.base_name());
            let mut bytes = fs::read(&file)?;
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&file, bytes)?;
        }

        let options = ClientOptions {
            use_substitutes: true,
            substitute_urls: Some(vec![format!("http://127.0.0.1:{PORT}")]),
            ..ClientOptions::default()
        };
        let mut daemon = Connection::connect(&machine.guix_address(), &ConnectOptions::default()).await?;
        daemon.set_options(&options).await?;
        let known = daemon.query_substitutable_path_infos(&BTreeSet::from([high.clone()])).await?;
        assert_eq!(known.first().map(|info| &info.references), Some(&BTreeSet::from([low.clone()])));
        for path in [&high, &both] {
            daemon
                .ensure_path(path, &mut Discard)
                .await
                .with_context(|| format!("{}: {path}", root.suite()))?;
        }
        assert_eq!(daemon.query_valid_paths(&BTreeSet::from([low.clone()])).await?.len(), 1);
        let text = fs::read_to_string(machine.outside(&high.to_string()))?;
        assert!(text.starts_with("contents of high\n"), "{text}");
        for (what, path) in damaged {
            // A substituter that failed is not asked again in the same session.
            let mut daemon = Connection::connect(&machine.guix_address(), &ConnectOptions::default()).await?;
            daemon.set_options(&options).await?;
            let taken = daemon.ensure_path(&path, &mut Discard).await;
            assert!(taken.is_err(), "{}: a damaged {what} was taken", root.suite());
            let mut asked = Connection::connect(&machine.guix_address(), &ConnectOptions::default()).await?;
            assert!(!asked.is_valid_path(&path).await?, "{}: a damaged {what} was taken", root.suite());
        }
        web.check_alive()?;
    }
    Ok(())
}

#[tokio::test]
async fn archives_and_keys_go_both_ways() -> Result<()> {
    for root in GuixRoot::all()? {
        require_root()?;
        let lab = LabDirectory::create()?;
        let config =
            MachineConfig { name: "one".to_owned(), guix: Some(root.clone()), ..MachineConfig::default() };
        let machine = Machine::start(lab.path(), &config)?;
        // A pair that Guix makes is read here, and our list of keys and Guix's are the same.
        machine.guix("guix")?.args(["archive", "--generate-key"]).run()?;
        let secret = fs::read(machine.outside("/etc/guix/signing-key.sec"))?;
        let public = fs::read(machine.outside("/etc/guix/signing-key.pub"))?;
        let key = SecretKey::parse_pair(&public, &secret)?;
        assert_eq!(SecretKey::parse(&secret)?.public_key(), key.public_key());
        assert_eq!(key.public_key().to_string().as_bytes(), public, "{}", root.suite());
        let ours = SecretKey::generate()?;
        let authorize = format!("echo '{}' | guix archive --authorize", ours.public_key());
        machine.guix("sh")?.args(["-c", &authorize]).run()?;
        let acl = Acl::parse(&fs::read(machine.outside("/etc/guix/acl"))?)?;
        assert!(acl.contains(ours.public_key().as_sexp()) && acl.contains(key.public_key().as_sexp()));

        // `guix archive --import` takes what is exported here with our key.
        let nar = Node::file("exported\n").to_nar()?;
        let path: StorePath = "/gnu/store/00000000000000000000000000000000-exported".parse()?;
        let mut stream = hauberk_store::export::ExportWriter::new(Vec::new());
        let mut item = stream.item()?;
        std::io::Write::write_all(&mut item, &nar)?;
        let about = hauberk_store::export::ExportItem {
            path: path.clone(),
            references: BTreeSet::new(),
            deriver: None,
        };
        item.finish(&about, Some(&ours))?;
        let file = machine.directory().join("tmp/archive");
        fs::write(&file, stream.finish()?)?;
        machine.guix("sh")?.args(["-c", "guix archive --import < /tmp/archive"]).run()?;
        assert_eq!(fs::read(machine.outside(&path.to_string()))?, b"exported\n");

        // What `guix archive --export` writes goes into a cache, and from there into the store again.
        let export = format!("guix archive --export {path} > /tmp/theirs");
        machine.guix("sh")?.args(["-c", &export]).run()?;
        let (cache, theirs) = (lab.path().join("cache"), machine.directory().join("tmp/theirs"));
        let signing_key = lab.path().join("farm.sec");
        fs::write(&signing_key, &*ours.to_secret_bytes())?;
        fs::set_permissions(&signing_key, fs::Permissions::from_mode(0o600))?;
        let program = hauberk_program()?;
        let hauberk = |action: &str| Launch::here(&program).args(["cache", action]).arg(&cache);
        let import = |key: &PublicKey| {
            hauberk("import")
                .arg(&theirs)
                .args(["--key", &key.to_string()])
                .arg("--signing-key")
                .arg(&signing_key)
                .run()
        };
        let refused = import(SecretKey::generate()?.public_key()).expect_err("nobody knows that key");
        assert!(format!("{refused:#}").contains("1 items were refused"), "{refused:#}");
        let taken = import(key.public_key())?;
        assert!(taken.starts_with("1 items taken"), "{taken}");
        fs::remove_file(&file)?;
        hauberk("export")
            .arg("--archive")
            .arg(&file)
            .arg("--signing-key")
            .arg(&signing_key)
            .arg(path.to_string())
            .run()?;
        machine.guix("guix")?.args(["gc", "--delete", &path.to_string()]).run()?;
        assert!(!machine.outside(&path.to_string()).exists());
        machine.guix("sh")?.args(["-c", "guix archive --import < /tmp/archive"]).run()?;
        assert_eq!(fs::read(machine.outside(&path.to_string()))?, b"exported\n");
    }
    Ok(())
}
