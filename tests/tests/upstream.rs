//! Substitute servers outside the farm: what they have is neither built nor fetched from workers, and what nobody has is told.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use hauberk_tests::{Deadline, Farm, FarmConfig, Launch, Machine, Process};

/// The port of the substitute server outside.
const OUTSIDE: u16 = 8099;

/// A job, and what it needs, which is none: sets are not searched for jobs.
fn graph(version: u32) -> String {
    format!(
        r#"
          hidden = {{ base = job "base-{version}" "echo base {version} > $out"; }};
          top = job "top-{version}" ''
            mkdir $out
            ln -s ${{hidden.base}} $out/base
            cat $out/base > $out/text
            ${{gate "top-{version}"}}
          '';
        "#
    )
}

/// A machine outside the farm that builds the base and publishes it, as anybody does.
struct Outside {
    machine: Machine,
    cache: PathBuf,
    url: String,
    key: String,
    _server: Process,
}

impl Outside {
    fn start(farm: &mut Farm) -> Result<Self> {
        let trusted = farm.server_signing_key().to_owned();
        let machine = farm.user_machine("outside", &trusted)?;
        let place = |name: &str| machine.directory().join(name);
        let generate = ["--generate-binary-cache-key", "outside-1"];
        machine.command("nix-store").args(generate).arg(place("key.sec")).arg(place("key.pub")).run()?;
        let key = fs::read_to_string(place("key.pub"))?.trim().to_owned();
        let cache = place("cache");
        fs::create_dir(&cache)?;
        let server = machine
            .command("busybox")
            .args(["httpd", "-f", "-p", &OUTSIDE.to_string(), "-h"])
            .arg(&cache)
            .start("outside", farm.directory())?;
        let addresses = machine.command("hostname").arg("-I").run()?;
        let address = addresses.split_whitespace().next().context("it has an address")?.to_owned();
        let url = format!("http://{address}:{OUTSIDE}");
        Ok(Self { machine, cache, url, key, _server: server })
    }

    /// Builds the base of this version, publishes it, and gives its path.
    fn publish(&self, version: u32) -> Result<String> {
        let file = self.machine.directory().join("release.nix");
        fs::write(&file, hauberk_tests::jobs(&graph(version)))?;
        let built = self
            .machine
            .command("nix-build")
            .args(["--no-out-link", "-A", "hidden.base"])
            .arg(&file)
            .run()?
            .trim()
            .to_owned();
        let key = self.machine.directory().join("key.sec");
        let to = format!("file://{}?secret-key={}", self.cache.display(), key.display());
        let copy = ["--extra-experimental-features", "nix-command", "copy", "--to", &to, &built];
        self.machine.command("nix").args(copy).run()?;
        Ok(built)
    }

    fn narinfo(&self, path: &str) -> PathBuf {
        self.cache.join(format!("{}.narinfo", hash_part(path)))
    }

    /// Has it no more, as far as anybody can tell.
    fn hide(&self, path: &str) -> Result<()> {
        Ok(fs::rename(self.narinfo(path), self.cache.join("hidden"))?)
    }

    fn show(&self, path: &str) -> Result<()> {
        Ok(fs::rename(self.cache.join("hidden"), self.narinfo(path))?)
    }
}

fn hash_part(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.split('-').next().unwrap_or_default()
}

/// Lets a machine's daemon trust these keys, and substitute from these URLs.
fn configure(machine: &mut Machine, keys: &[&str], urls: &[&str]) -> Result<()> {
    let file = machine.directory().join("etc-nix/nix.conf");
    let settings = fs::read_to_string(&file)?;
    let lines =
        format!("{settings}\ntrusted-public-keys = {}\nsubstituters = {}\n", keys.join(" "), urls.join(" "));
    fs::write(&file, lines)?;
    machine.kill_daemon()?;
    machine.start_daemon()
}

fn with(launch: &Launch, url: &str) -> Launch {
    launch.clone().args(["--substitute-urls", url])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_have_stays_there_and_what_nobody_has_is_told() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, ..FarmConfig::new()? })?;
    let outside = Outside::start(&mut farm)?;
    let own = farm.server_signing_key().to_owned();
    let keys = [own.as_str(), outside.key.as_str()];
    let url = outside.url.as_str();
    // The daemon of the server's machine substitutes by itself, the worker's does not.
    configure(&mut farm.server_machine, &keys, &[url])?;
    configure(&mut farm.workers[0].machine, &keys, &[])?;
    let launch = with(&farm.server_launch(), url).args(["--add-to-store", "--retry-delay", "1"]);
    let mut server = launch.start("remote-server", farm.directory())?;
    server.wait_ready(Deadline::seconds(60))?;
    farm.server = Some(server);
    farm.workers[0].launch = with(&farm.workers[0].launch, url);
    farm.start_worker(0)?;
    farm.wait_until_joined(0).await?;

    let base = outside.publish(1)?;
    let (repository, specification) = farm.repository("upstream", &graph(1))?;
    let register = with(&farm.register_launch(std::slice::from_ref(&specification))?, url);
    let mut register = register.start("register", farm.directory())?;
    register.wait_ready(Deadline::seconds(60))?;
    farm.register = Some(register);
    farm.gates.open("top-1")?;
    farm.wait_for_build("top-1", &["succeeded"], Deadline::seconds(120)).await?;
    let builds: i64 = farm.query("select count(*) from builds", &[]).await?[0].get(0);
    assert_eq!(builds, 1, "the base was to be built: {}", farm.describe_builds().await);
    let fetched = format!("fetched {base} from {url}");
    farm.workers[0].process()?.wait_log(&fetched, Deadline::seconds(10))?;
    let here = |farm: &Farm, path: &str| farm.cache().join(format!("{}.narinfo", hash_part(path)));
    let top = farm.output_of("top-1").await?;
    let narinfo = fs::read_to_string(here(&farm, &top))?;
    let reference = base.trim_start_matches("/nix/store/");
    ensure!(narinfo.lines().any(|line| line == format!("References: {reference}")), "{narinfo}");
    ensure!(!here(&farm, &base).exists(), "what the server outside has was fetched from the worker");
    // The server's machine got the one from the cache, and the other by its daemon.
    for path in [&top, &base] {
        farm.server_machine.command("nix-store").args(["--check-validity", path]).run()?;
    }
    // So does whoever uses both.
    let mut user = farm.user_machine("user", &own)?;
    configure(&mut user, &keys, &[&farm.publish_url(), url])?;
    user.command("nix-store").args(["--realise", &top]).run()?;
    assert_eq!(fs::read_to_string(user.outside(&base))?, "base 1\n");

    // What was there when it was registered is there no more: that is told at once, with its name.
    farm.workers[0].process()?.stop(Deadline::seconds(60))?;
    let base = outside.publish(2)?;
    repository.write("release.nix", &hauberk_tests::jobs(&graph(2)))?;
    repository.commit("Go on")?;
    farm.look_now("upstream").await?;
    farm.wait_for_build("top-2", &["ready"], Deadline::seconds(60)).await?;
    outside.hide(&base)?;
    farm.start_worker(0)?;
    let begun = Instant::now();
    let missing = "select exists (select from attempts where class = 'missing_inputs' and message like '%' || $1 || '%')";
    farm.wait_until("the missing input is told", Deadline::seconds(60), missing, &[&base]).await?;
    println!("missing inputs were told after {:?}", begun.elapsed());
    ensure!(!farm.workers[0].machine.outside(&base).exists(), "the input was built on the worker");

    // It comes back and the next try has it. While that builds, it goes again: it comes along with the output.
    outside.show(&base)?;
    farm.gates.wait_for_arrivals("top-2", 1, Deadline::seconds(120))?;
    outside.hide(&base)?;
    farm.gates.open("top-2")?;
    farm.wait_for_build("top-2", &["succeeded"], Deadline::seconds(120)).await?;
    ensure!(here(&farm, &base).exists(), "what nobody else has did not come with the output");
    let top = farm.output_of("top-2").await?;
    configure(&mut user, &[&own], &[&farm.publish_url()])?;
    user.command("nix-store").args(["--realise", &top]).run()?;
    assert_eq!(fs::read_to_string(user.outside(&base))?, "base 2\n");
    farm.hauberk().args(["cache", "verify"]).arg(farm.cache()).run()?;
    farm.stop_all()
}
