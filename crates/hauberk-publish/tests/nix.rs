//! The stock Nix client and daemon against our server, and our client against what `nix copy` writes.
//!
//! Needs root (for namespaces) and Nix. Each machine has mounts and processes of its own, so its `/nix` is its own.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use hauberk_daemon::{ClientOptions, ConnectOptions, DaemonAddress, Pool};
use hauberk_publish::{
    Cache, PublishConfig, Signer, StoreSource, SubstituteClient, TrustedKeys, cache,
    client::{ClientConfig, ClosureLimits, Source},
};
use hauberk_store::{
    NarInfo, StoreDirectory, StorePath,
    narinfo::Compression,
    signature::nix::{PublicKey, SecretKey},
};
use support::{Server, raw_server, respond, respond_not_found};
use tokio::io::AsyncReadExt;

const INIT: &str = r#"
set -eu
mount --bind "$1/nix" /nix
mount --bind "$1/etc-nix" /etc/nix
echo ready
exec nix-daemon >"$1/daemon.log" 2>&1
"#;

/// A Nix store and its daemon.
struct Machine {
    directory: tempfile::TempDir,
    outer: Child,
}

impl Machine {
    fn start(trusted: &[&PublicKey]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for name in ["nix", "etc-nix", "home"] {
            fs::create_dir(path.join(name)).unwrap();
        }
        for mount_point in ["/nix", "/etc/nix"] {
            fs::create_dir_all(mount_point).unwrap();
        }
        let keys: Vec<String> = trusted.iter().map(ToString::to_string).collect();
        let conf = format!(
            "build-users-group =\nsandbox = false\nsubstituters =\ntrusted-public-keys = {}\n\
             narinfo-cache-negative-ttl = 0\nnarinfo-cache-positive-ttl = 0\ndownload-attempts = 1\n\
             experimental-features = nix-command\nfsync-metadata = false\n",
            keys.join(" ")
        );
        fs::write(path.join("etc-nix/nix.conf"), conf).unwrap();
        // In a process group of its own, and dying with the test.
        let mut outer = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL"])
            .args(["--propagation", "private", "--mount-proc", "bash", "-c", INIT, "init"])
            .arg(path)
            .env("NIX_REMOTE", "")
            .env("HOME", path.join("home"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(outer.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "the machine does not come up; are we root?");
        let machine = Self { directory, outer };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !machine.socket().exists() {
            assert!(Instant::now() < deadline, "the nix-daemon does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        machine
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("nix/var/nix/daemon-socket/socket")
    }

    fn store_uri(&self) -> String {
        format!("unix://{}?root={}", self.socket().display(), self.directory.path().display())
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Output {
        Command::new(program)
            .args(arguments)
            .env("NIX_REMOTE", self.store_uri())
            .env("HOME", self.directory.path().join("home"))
            .env("NIX_CONFIG", "experimental-features = nix-command")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program, arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Builds a library, and a program that refers to it; gives the derivation and the outputs, the program's last.
    fn build(&self) -> (StorePath, Vec<StorePath>) {
        let file = self.directory.path().join("jobs.nix");
        fs::write(
            &file,
            r#"
            let job = name: text: derivation {
              inherit name; system = builtins.currentSystem; builder = "/bin/sh";
              inherit text;
              args = [ (builtins.toFile "builder.sh" "/bin/mkdir $out; echo $text > $out/text; /bin/ln -s text $out/link; i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done > $out/lines") ];
            };
            library = job "library" "alone";
            in { program = job "program" "uses ${library}"; inherit library; }
            "#,
        )
        .unwrap();
        let file = file.to_str().unwrap();
        let drv = self.run("nix-instantiate", &[file, "-A", "program"]);
        let outputs = self.run("nix-build", &[file, "--no-out-link", "-A", "library", "-A", "program"]);
        (path(&drv), outputs.lines().map(path).collect())
    }

    fn substitute(&self, path: &StorePath, server: &str) -> Output {
        self.command("nix-store", &["--realise", &path.to_string(), "--option", "substituters", server])
    }

    fn source(&self) -> StoreSource {
        let address = DaemonAddress::from_path(self.socket());
        let pool = Pool::to_socket(address, ConnectOptions::default(), ClientOptions::default(), 2);
        StoreSource::new(pool, self.directory.path())
    }

    /// Tells the hash Nix itself computes of a path that is here.
    fn nar_hash(&self, path: &StorePath) -> String {
        self.run("nix-store", &["--query", "--hash", &path.to_string()])
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.outer.kill();
        let _ = self.outer.wait();
    }
}

fn path(text: &str) -> StorePath {
    StorePath::parse(text).unwrap()
}

fn secret(name: &str) -> SecretKey {
    SecretKey::generate(name).unwrap()
}

fn serve(key: &SecretKey, cache: Option<Cache>, store: Option<StoreSource>) -> Server {
    let mut config = PublishConfig::new(StoreDirectory::nix());
    config.signer = Signer::nix([key.clone()]);
    config.cache = cache;
    config.store = store;
    Server::start(config)
}

fn assert_refused(output: &Output, expected: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it was taken");
    assert!(stderr.contains(expected), "{stderr}");
}

#[test]
fn stock_nix_substitutes_from_a_store_and_from_a_cache() {
    let key = secret("worker-1");
    let builder = Machine::start(&[]);
    let (drv, outputs) = builder.build();
    let program = outputs.last().unwrap();
    let server = serve(&key, None, Some(builder.source()));
    let url = server.url().to_string();

    // Without the key it is refused, with it the closure arrives.
    let stranger = Machine::start(&[&secret("worker-1").public_key()]);
    let refused = stranger.substitute(program, &url);
    assert_refused(&refused, "is not signed by any of the keys");
    let friend = Machine::start(&[&key.public_key()]);
    let taken = friend.substitute(program, &url);
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    for output in &outputs {
        assert_eq!(friend.nar_hash(output), builder.nar_hash(output));
    }
    // Derivations and sources too, with all they refer to.
    let taken = friend.substitute(&drv, &url);
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    assert_eq!(friend.nar_hash(&drv), builder.nar_hash(&drv));
    // And by the other command, into a store without a daemon.
    let target = tempfile::tempdir().unwrap();
    let to = format!("local?root={}", target.path().display());
    let trusted = key.public_key().to_string();
    let copy = [
        "copy",
        "--from",
        &url,
        "--to",
        &to,
        "--option",
        "trusted-public-keys",
        &trusted,
        &program.to_string(),
    ];
    friend.run("nix", &copy);

    // Now through the cache of a server that fetched it from that worker, packed.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let farm = secret("farm-1");
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path(), &StoreDirectory::nix()).unwrap();
    runtime.block_on(async {
        let client = SubstituteClient::new(StoreDirectory::nix(), ClientConfig::farm()).unwrap();
        let worker = TrustedKeys::nix([key.public_key()]);
        let source = Source { url: server.url(), trusted: Some(worker.clone()) };
        let nothing = &mut support::NothingValid;
        let closure =
            client.closure([program.clone()], &[source], nothing, ClosureLimits::default()).await.unwrap();
        assert!(closure.is_complete());
        let order: Vec<&StorePath> =
            closure.missing.iter().map(|missing| &missing.narinfo.store_path).collect();
        assert_eq!(order, outputs.iter().collect::<Vec<_>>());
        let mut batch = Vec::new();
        for missing in &closure.missing {
            batch.push(client.fetch(&server.url(), &missing.narinfo, &worker, &cache).await.unwrap());
        }
        cache.commit(batch, &Signer::nix([farm.clone()])).await.unwrap();
    });
    let republished = serve(&farm, Some(cache), None);
    let customer = Machine::start(&[&farm.public_key()]);
    let taken = customer.substitute(program, &republished.url().to_string());
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    assert_eq!(customer.nar_hash(program), builder.nar_hash(program));

    // The directory itself is a cache that Nix can read.
    let reader = Machine::start(&[&farm.public_key()]);
    let taken = reader.substitute(program, &format!("file://{}", directory.path().display()));
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
}

/// Texts that refer to some of those before them, in a closure of this many paths; gives the last, which refers to all.
fn closure(machine: &Machine, count: usize) -> StorePath {
    let file = machine.directory.path().join("closure.nix");
    let text = format!(
        "let make = all: number: all ++ [ (builtins.toFile \"text-${{toString number}}\" (builtins.concatStringsSep \"\\n\"\n\
         ([ (toString number) ] ++ map (back: builtins.elemAt all (number - back))\n\
         (builtins.filter (back: back <= number) [ 1 7 50 ])))) ];\n\
         texts = builtins.foldl' make [ ] (builtins.genList (number: number) {});\n\
         in builtins.toFile \"all\" (builtins.concatStringsSep \"\\n\" texts)",
        count - 1
    );
    fs::write(&file, text).unwrap();
    path(&machine.run("nix", &["eval", "--raw", "--file", file.to_str().unwrap()]))
}

/// Closures of hundreds of paths, in all the ways that nars are packed: while they are sent, and in the cache.
#[test]
fn stock_nix_takes_large_closures_with_each_compression() {
    const PATHS: usize = 400;
    let key = secret("farm-1");
    let builder = Machine::start(&[]);
    let top = closure(&builder, PATHS);
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path(), &StoreDirectory::nix()).unwrap();
    let plain = serve(&key, None, Some(builder.source()));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = SubstituteClient::new(StoreDirectory::nix(), ClientConfig::farm()).unwrap();
        let trusted = TrustedKeys::nix([key.public_key()]);
        let source = Source { url: plain.url(), trusted: Some(trusted.clone()) };
        let nothing = &mut support::NothingValid;
        let closure =
            client.closure([top.clone()], &[source], nothing, ClosureLimits::default()).await.unwrap();
        assert!(closure.is_complete());
        assert_eq!(closure.missing.len(), PATHS);
        let mut batch = Vec::new();
        for missing in &closure.missing {
            batch.push(client.fetch(&plain.url(), &missing.narinfo, &trusted, &cache).await.unwrap());
        }
        cache.commit(batch, &Signer::nix([key.clone()])).await.unwrap();
    });
    let mut servers = vec![serve(&key, Some(cache), None), plain];
    for compression in [Compression::Gzip, Compression::Zstd] {
        let mut config = PublishConfig::new(StoreDirectory::nix());
        config.signer = Signer::nix([key.clone()]);
        config.store = Some(builder.source());
        config.compression = compression;
        servers.push(Server::start(config));
    }
    let trusted = key.public_key().to_string();
    let expected = builder.run("nix-store", &["--query", "--requisites", &top.to_string()]);
    for server in &servers {
        let target = tempfile::tempdir().unwrap();
        let to = format!("local?root={}", target.path().display());
        let from = server.url().to_string();
        let keys = ["--option", "trusted-public-keys", &trusted];
        builder.run("nix", &[&["copy", "--from", &from, "--to", &to, &top.to_string()], &keys[..]].concat());
        let store = format!("{}/nix/store", target.path().display());
        for line in expected.lines() {
            let name = line.rsplit('/').next().unwrap();
            assert!(Path::new(&store).join(name).exists(), "{from}: {name} is not there");
        }
        let verify = ["store", "verify", "--all", "--no-trust", "--store", &to];
        builder.run("nix", &verify);
        // What is inside is shown without taking it.
        let shown = builder.run("nix", &["store", "cat", "--store", &from, &top.to_string()]);
        assert_eq!(shown.lines().count(), PATHS - 1);
    }
}

#[test]
fn our_client_takes_what_nix_copy_wrote() {
    let key = secret("copier-1");
    let builder = Machine::start(&[]);
    let (_, outputs) = builder.build();
    let program = outputs.last().unwrap();
    let secrets = tempfile::NamedTempFile::new().unwrap();
    fs::write(secrets.path(), &*key.to_secret_string()).unwrap();
    let trusted = TrustedKeys::nix([key.public_key()]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for name in ["xz", "zstd", "none", "gzip"] {
        let directory = tempfile::tempdir().unwrap();
        let to = format!(
            "file://{}?compression={name}&secret-key={}",
            directory.path().display(),
            secrets.path().display()
        );
        builder.run("nix", &["copy", "--to", &to, &program.to_string()]);
        // It says what nix-cache-info must say, so that a cache of ours can be opened on it.
        let cache = Cache::open(directory.path(), &StoreDirectory::nix()).unwrap();
        let server = serve(&key, Some(cache), None);
        runtime.block_on(async {
            let client = SubstituteClient::new(StoreDirectory::nix(), ClientConfig::farm()).unwrap();
            let url = server.url();
            let narinfo = client.trusted_narinfo(&url, program, &trusted).await.unwrap().unwrap();
            assert_eq!(narinfo.urls[0].compression, Compression::parse(name));
            let mut nar = Vec::new();
            client.nar(&url, &narinfo).await.unwrap().read_to_end(&mut nar).await.unwrap();
            assert_eq!(hauberk_store::Sha256::digest(&nar).to_string(), builder.nar_hash(program));
            let own = tempfile::tempdir().unwrap();
            let own = Cache::open(own.path(), &StoreDirectory::nix()).unwrap();
            let pending = client.fetch(&url, &narinfo, &trusted, &own).await.unwrap();
            let kept = if name == "none" { Compression::Zstd } else { Compression::parse(name) };
            assert_eq!(pending.narinfo().urls[0].compression, kept);
        });
        let customer = Machine::start(&[&key.public_key()]);
        let taken = customer.substitute(program, &server.url().to_string());
        assert!(taken.status.success(), "{name}: {}", String::from_utf8_lossy(&taken.stderr));
    }
}

#[test]
fn caches_and_archives_go_to_and_from_stock_nix() {
    let key = secret("copier-1");
    let farm = secret("farm-1");
    let builder = Machine::start(&[]);
    let (_, outputs) = builder.build();
    let program = outputs.last().unwrap();
    let secrets = tempfile::NamedTempFile::new().unwrap();
    fs::write(secrets.path(), &*key.to_secret_string()).unwrap();
    let none = |refused: &cache::Refused| panic!("{refused}");

    // What `nix copy` wrote, through our cache, to a Nix that knows our key only.
    let copied = tempfile::tempdir().unwrap();
    let to =
        format!("file://{}?compression=xz&secret-key={}", copied.path().display(), secrets.path().display());
    builder.run("nix", &["copy", "--to", &to, &program.to_string()]);
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path(), &StoreDirectory::nix()).unwrap();
    let import = cache::Import {
        trusted: Some(TrustedKeys::nix([key.public_key()])),
        signer: Signer::nix([farm.clone()]),
        ..cache::Import::default()
    };
    let source = cache::CacheReader::open(copied.path()).unwrap();
    let imported = cache.import(&source, &[program.hash()], true, &import, none).unwrap();
    assert_eq!((imported.items, imported.absent), (2, 0));
    let customer = Machine::start(&[&farm.public_key()]);
    let taken = customer.substitute(program, &format!("file://{}", directory.path().display()));
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    assert_eq!(customer.nar_hash(program), builder.nar_hash(program));

    // Our archive into a store, and an archive of that store into a cache.
    let archive = tempfile::NamedTempFile::new().unwrap();
    let written = cache::export_archive(cache.reader(), &[program.hash()], true, None, archive.as_file());
    assert_eq!(written.unwrap(), 2);
    let importer = Machine::start(&[]);
    let shell = format!("nix-store --import < {}", archive.path().display());
    let taken = importer.run("sh", &["-c", &shell]);
    assert_eq!(taken.lines().map(path).collect::<Vec<_>>(), outputs);
    assert_eq!(importer.nar_hash(program), builder.nar_hash(program));
    let back = tempfile::tempdir().unwrap();
    let back = Cache::open(back.path(), &StoreDirectory::nix()).unwrap();
    let shell = format!("nix-store --export $(nix-store -qR {program}) > {}", archive.path().display());
    importer.run("sh", &["-c", &shell]);
    let stream = fs::File::open(archive.path()).unwrap();
    let imported = back.import_archive(stream, None, &import, none).unwrap();
    assert_eq!(imported.items, 2);
    let narinfo = back.narinfo(&program.hash()).unwrap().unwrap();
    assert_eq!(narinfo.nar_hash.to_string(), builder.nar_hash(program));
}

#[test]
fn stock_nix_refuses_what_was_tampered_with() {
    let key = secret("worker-1");
    let builder = Machine::start(&[]);
    let (_, outputs) = builder.build();
    let library = &outputs[0];
    let server = serve(&key, None, Some(builder.source()));
    let narinfo = server.get(&format!("/{}.narinfo", library.hash_part())).text();
    let narinfo = NarInfo::parse(&StoreDirectory::nix(), &narinfo).unwrap();
    let nar = server.get(&format!("/{}", narinfo.urls[0].url)).body;
    let customer = Machine::start(&[&key.public_key()]);
    let check = |narinfo: &NarInfo, nar: &[u8], expected: &str| {
        let (text, nar) = (narinfo.to_string(), nar.to_vec());
        let name = format!("/{}.narinfo", narinfo.store_path.hash_part());
        let relay = raw_server(move |path, stream| match path {
            "/nix-cache-info" => respond(stream, b"StoreDir: /nix/store\n"),
            path if path == name => respond(stream, text.as_bytes()),
            path if path.starts_with("/nar/") => respond(stream, &nar),
            _ => respond_not_found(stream),
        });
        assert_refused(&customer.substitute(library, &relay.to_string()), expected);
    };

    let mut other = narinfo.clone();
    let signature = other.signatures[0].to_string();
    let (name, text) = signature.split_once(':').unwrap();
    let flipped = format!("{name}:{}{}", if text.starts_with('A') { 'B' } else { 'A' }, &text[1..]);
    other.signatures = vec![flipped.parse().unwrap()];
    check(&other, &nar, "is not signed by any of the keys");
    let mut other = narinfo.clone();
    other.nar_size += 8;
    check(&other, &nar, "is not signed by any of the keys");
    let mut flipped = nar.clone();
    let at = nar.windows(5).position(|window| window == b"alone").unwrap();
    flipped[at] ^= 1;
    check(&narinfo, &flipped, "hash mismatch");

    // And what they refuse is taken as it was.
    let taken = customer.substitute(library, &server.url().to_string());
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
}

#[test]
fn nars_are_those_nix_makes() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    support::tree(&tree);
    let compare = |path: &Path| {
        let dumped = Command::new("nix-store").arg("--dump").arg(path).output().unwrap();
        assert!(dumped.status.success());
        let mut ours = Vec::new();
        let mut reader = hauberk_publish::stream::NarReader::open(path).unwrap();
        std::io::Read::read_to_end(&mut reader, &mut ours).unwrap();
        assert!(ours == dumped.stdout, "{}", path.display());
    };
    for name in ["", "link", "bytes", "Upper", "bin", "bin/run", "bin/empty", "eight888"] {
        compare(&if name.is_empty() { tree.clone() } else { tree.join(name) });
    }
    compare(Path::new("/usr/share/doc"));
}
