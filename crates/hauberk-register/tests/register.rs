//! The register with real git, a real nix-daemon, real nix-instantiate and real PostgreSQL.

#![allow(clippy::unwrap_used, reason = "a test that fails says so by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hauberk_database::testing::TestDatabase;
use hauberk_database::{EvaluationId, begin, commit, control, evaluations};
use hauberk_register::{Config, PushWhen, RegisterError, run, specification};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(120);

/// A nix-daemon whose store lies below a folder of its own; ended when dropped.
struct Daemon {
    child: Child,
    root: PathBuf,
}

impl Daemon {
    async fn start(root: &Path) -> Self {
        let configuration = root.join("etc");
        std::fs::create_dir_all(&configuration).unwrap();
        std::fs::create_dir_all(root.join("nix/store")).unwrap();
        std::fs::write(
            configuration.join("nix.conf"),
            "build-users-group =\nexperimental-features = ca-derivations\n",
        )
        .unwrap();
        let socket = root.join("socket");
        let child = Command::new("nix-daemon")
            .env("NIX_REMOTE", format!("local?root={}", root.display()))
            .env("NIX_DAEMON_SOCKET_PATH", &socket)
            .env("NIX_CONF_DIR", &configuration)
            .env("HOME", root)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nix-daemon is installed");
        let daemon = Self { child, root: root.to_owned() };
        wait_for("the nix-daemon listens", async || tokio::net::UnixStream::connect(&socket).await.is_ok())
            .await;
        daemon
    }

    fn address(&self) -> String {
        let root = self.root.display();
        format!("unix://{root}/socket?root={root}")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn wait_for(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not so in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "init.defaultBranch=main"])
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A repository, a store, a database and a folder for the register.
struct Place {
    test: TestDatabase,
    daemon: Option<Daemon>,
    address: String,
    repository: PathBuf,
    state: PathBuf,
    directory: tempfile::TempDir,
}

const EXPRESSION: &str = r#"
{ system ? "x86_64-linux", flavour, source }:
let
  make = name: inputs: arguments: derivation ({
    inherit name system flavour inputs;
    builder = "/bin/sh";
    args = [ "-c" "echo > $out" ];
  } // arguments);
  hidden = make "hidden" [ ] { };
  kernel = make "kernel" [ ] { requiredSystemFeatures = [ "kvm" "big-parallel" ]; };
  library = make "library" [ hidden ] { timeout = 88; };
in {
  inherit library;
  top = make "top" [ library kernel ] { script = ./script.sh; } // {
    hauberk.priority = 2;
    meta = { timeout = 77; maxSilent = 7; };
  };
  nested = {
    recurseForDerivations = true;
    deep = make "deep" [ ] { } // { meta.schedulingPriority = 500; };
  };
  ignored = { other = make "other" [ ] { }; };
  thrown = throw "this one is thrown";
  floating = make "floating" [ ] { __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; };
}
"#;

impl Place {
    async fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("hauberk-register-").tempdir_in("/tmp").unwrap();
        let repository = directory.path().join("repository");
        std::fs::create_dir(&repository).unwrap();
        git(&repository, &["init", "--quiet"]);
        std::fs::write(repository.join("script.sh"), "echo\n").unwrap();
        let store = directory.path().join("store");
        let daemon = Daemon::start(&store).await;
        let place = Self {
            test: TestDatabase::empty().await,
            address: daemon.address(),
            daemon: Some(daemon),
            repository,
            state: directory.path().join("state"),
            directory,
        };
        let configuration = place.state.join("home/.config/nix");
        std::fs::create_dir_all(&configuration).unwrap();
        std::fs::write(configuration.join("nix.conf"), "experimental-features = ca-derivations\n").unwrap();
        place.commit(EXPRESSION);
        place
    }

    fn commit(&self, expression: &str) -> String {
        std::fs::write(self.repository.join("release.nix"), expression).unwrap();
        git(&self.repository, &["add", "."]);
        git(&self.repository, &["commit", "--quiet", "--allow-empty", "-m", "change"]);
        git(&self.repository, &["rev-parse", "HEAD"])
    }

    fn config(&self, change: impl Fn(String) -> String) -> Config {
        let text = format!(
            r#"
[[specification]]
name = "demo"
priority = 3
max-silent = 600

[[specification.input]]
name = "source"
url = "file://{}"

[specification.evaluator]
kind = "nix"
arguments = {{ flavour = "plain" }}
"#,
            self.repository.display()
        );
        let file = self.directory.path().join("specifications.toml");
        std::fs::write(&file, change(text)).unwrap();
        Config {
            database: self.test.location().clone(),
            specifications: specification::read(&file).unwrap(),
            interval: Duration::from_secs(3600),
            one_shot: true,
            state_directory: self.state.clone(),
            daemon: self.address.parse().unwrap(),
            substitute_urls: Vec::new(),
            push: PushWhen::Auto,
            server_urls: Vec::new(),
            push_patience: Duration::ZERO,
        }
    }

    async fn once(&self) -> Result<(), RegisterError> {
        self.once_with(|text| text).await
    }

    async fn once_with(&self, change: impl Fn(String) -> String) -> Result<(), RegisterError> {
        run(self.config(change), CancellationToken::new(), || {}).await
    }

    async fn number(&self, query: &str) -> i64 {
        self.test.client().await.query_one(query, &[]).await.unwrap().get(0)
    }

    async fn texts(&self, query: &str) -> Vec<String> {
        let rows = self.test.client().await.query(query, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn evaluations(&self) -> i64 {
        self.number("select count(*) from evaluations").await
    }

    async fn wait_for_evaluations(&self, query: &str, wanted: i64) {
        wait_for(query, async || self.number(query).await == wanted).await;
    }
}

#[tokio::test]
async fn a_commit_becomes_jobs_builds_and_dependencies() {
    let place = Place::new().await;
    place.once().await.unwrap();

    assert_eq!(
        place
            .texts("select j.name || ' ' || j.priority || ' ' || b.priority from jobs j join builds b on b.id = j.build_id order by 1")
            .await,
        ["library 9 32", "nested.deep 5 35", "top 2 32"]
    );
    assert_eq!(
        place
            .texts("select b.name || ' ' || b.state || ' ' || b.timeout || ' ' || b.max_silent from builds b order by 1")
            .await,
        [
            "deep ready 36000 600",
            "hidden ready 36000 600",
            "kernel ready 36000 600",
            "library waiting 88 600",
            "top waiting 77 7",
        ]
    );
    assert_eq!(
        place
            .texts(
                "select b.name || ' needs ' || d.name from build_dependencies e
                 join builds b on b.id = e.build_id join builds d on d.id = e.dependency_id order by 1"
            )
            .await,
        ["library needs hidden", "top needs kernel", "top needs library"]
    );
    assert_eq!(
        place.texts("select l.features::text from builds b join lanes l on l.id = b.lane_id where b.name = 'kernel'").await,
        ["{big-parallel,kvm}"]
    );
    let errors = place.texts("select name || ': ' || message from job_errors order by 1").await;
    assert!(errors[0].starts_with("floating: "), "{errors:?}");
    assert_eq!(errors[1], "thrown: this one is thrown");
    assert_eq!(place.texts("select message from evaluations").await, ["2 of 5 jobs gave no build"]);

    // The derivations are in the store, and kept.
    for path in place.texts("select path from derivations").await {
        let file = place.directory.path().join("store").join(path.trim_start_matches('/'));
        assert!(file.exists(), "{path}");
    }
    assert_eq!(std::fs::read_dir(place.state.join("roots/1")).unwrap().count(), 3);
    let roots = place.directory.path().join("store/nix/var/nix/gcroots/auto");
    assert_eq!(std::fs::read_dir(roots).unwrap().count(), 3);
    let log = place.texts("select log_path from evaluations").await.remove(0);
    assert!(place.state.join(log).exists());

    // Nothing new, no evaluation.
    place.once().await.unwrap();
    assert_eq!(place.evaluations().await, 1);

    // A commit that changes nothing in the derivations makes an evaluation, and no build.
    let before = git(&place.repository, &["rev-parse", "HEAD"]);
    place.commit(&format!("{EXPRESSION}\n"));
    place.once().await.unwrap();
    assert_eq!((place.evaluations().await, place.number("select count(*) from builds").await), (2, 5));
    assert_eq!(std::fs::read_dir(place.state.join("checkouts/demo/source")).unwrap().count(), 1);

    // Going back evaluates again, and so does another specification.
    git(&place.repository, &["reset", "--quiet", "--hard", &before]);
    place.once().await.unwrap();
    assert_eq!(place.evaluations().await, 3);
    place.once_with(|text| text.replace("plain", "rich")).await.unwrap();
    assert_eq!((place.evaluations().await, place.number("select count(*) from builds").await), (4, 10));
}

#[tokio::test]
async fn faults_are_recorded_and_named() {
    let mut place = Place::new().await;
    let checked = "select coalesce(check_error, '') from specifications";
    let failed = |result: Result<(), RegisterError>| match result {
        Err(error @ RegisterError::EvaluationFailed { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };

    let text = failed(place.once_with(|text| text.replace("repository\"", "nowhere\"")).await);
    assert!(text.contains("`demo`") && text.contains("nowhere"), "{text}");
    assert!(place.texts(checked).await[0].contains("nowhere"));
    let branch = |text: String| text.replace("name = \"source\"", "name = \"source\"\nbranch = \"none\"");
    assert!(failed(place.once_with(branch).await).contains("has no branch `none`"));
    assert_eq!(place.evaluations().await, 0);

    place.commit("{ source, flavour }: { top = undefined; }");
    assert!(failed(place.once().await).contains("undefined variable 'undefined', at release.nix:1:"));
    assert_eq!(place.texts("select status || ' ' || message from evaluations").await.len(), 1);
    assert!(place.texts("select message from evaluations").await[0].contains("undefined variable"));

    // Errors that Nix cannot catch are found by evaluating less.
    let parts = "{ source, flavour }: let make = name: derivation { inherit name flavour; system = \"s\"; builder = \"/b\"; };
      in { a = make \"a\"; b = source.missing; c = make \"c\"; d = make { };
           n = { recurseForDerivations = true; e = make \"e\"; f = make (1 + \"x\"); g = throw \"thrown\"; }; }";
    place.commit(parts);
    place.once().await.unwrap();
    let jobs = place.texts("select name from jobs where evaluation_id = 2 order by 1").await;
    assert_eq!(jobs, ["a", "c", "n.e"]);
    let errors = place.texts("select name || ': ' || message from job_errors order by 1").await;
    assert_eq!(errors.len(), 4, "{errors:?}");
    for (error, start) in errors.iter().zip(["b: ", "d: ", "n.f: cannot ", "n.g: thrown"]) {
        assert!(error.starts_with(start), "{error}");
    }
    place.test.client().await.batch_execute("delete from evaluations where status = 0").await.unwrap();
    place.test.client().await.batch_execute("truncate builds cascade").await.unwrap();

    place.commit("{ source }: { }");
    assert!(failed(place.once().await).contains("called with unexpected argument 'flavour'"));
    place.commit("{ ... }: { top = import /etc/passwd; }");
    assert!(failed(place.once().await).contains("forbidden in restricted mode"));
    let slow =
        "{ ... }: let loop = n: if n == 0 then 0 else loop (n - 1) + loop (n - 1); in { top = loop 60; }";
    place.commit(slow);
    let limit = |text: String| format!("{text}timeout = 1\n");
    let text = failed(place.once_with(limit).await);
    assert!(text.contains("time limit of 1 s"), "{text}");
    assert_eq!(place.number("select count(*) from evaluations where status = 1").await, 4);
    assert_eq!(place.number("select count(*) from builds").await, 0);

    place.daemon = None;
    place.commit(EXPRESSION);
    assert!(failed(place.once().await).contains("cannot connect to the build daemon"));
    assert_eq!(place.evaluations().await, 4);
    place.daemon = Some(Daemon::start(&place.directory.path().join("store")).await);
    place.once().await.unwrap();
    assert_eq!(place.texts(checked).await, [""]);
}

#[tokio::test]
async fn the_loop_goes_on_is_woken_and_stops_in_order() {
    let place = Place::new().await;
    let stop = CancellationToken::new();
    let mut config = place.config(|text| text);
    config.one_shot = false;
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let register = tokio::spawn(run(config.clone(), stop.clone(), move || ready.send(()).unwrap()));
    is_ready.await.unwrap();
    let succeeded = "select count(*) from evaluations where status = 0";
    place.wait_for_evaluations(succeeded, 1).await;

    // The interval is an hour; a request is heard at once.
    place.commit("{ ... }: { top = undefined; }");
    evaluations::request(&place.test.client().await, "demo").await.unwrap();
    place.wait_for_evaluations("select count(*) from evaluations where status = 1", 1).await;
    place.commit(&format!("{EXPRESSION}# more"));
    evaluations::request(&place.test.client().await, "demo").await.unwrap();
    place.wait_for_evaluations(succeeded, 2).await;

    // Stopped in the middle of an evaluation, it leaves no child and an aborted evaluation.
    let slow =
        "{ ... }: let loop = n: if n == 0 then 0 else loop (n - 1) + loop (n - 1); in { top = loop 60; }";
    place.commit(slow);
    evaluations::request(&place.test.client().await, "demo").await.unwrap();
    wait_for("the evaluator runs", async || children("nix-instantiate", &place.state) > 0).await;
    stop.cancel();
    register.await.unwrap().unwrap();
    assert_eq!(children("nix-instantiate", &place.state), 0);
    assert_eq!(
        place.texts("select message from evaluations where status = 2").await,
        ["the register was stopped"]
    );

    // One that was killed leaves an evaluation that the next one aborts and repeats.
    place
        .test
        .client()
        .await
        .execute("update evaluations set status = -1 where status = 2", &[])
        .await
        .unwrap();
    place.commit(&format!("{EXPRESSION}# last"));
    place.once().await.unwrap();
    assert_eq!(
        place.texts("select message from evaluations where status = 2").await,
        ["the register was killed"]
    );
    assert_eq!(place.number(succeeded).await, 3);
}

#[tokio::test]
async fn a_canceled_evaluation_ends_at_once_and_is_repeated_when_it_is_asked_for() {
    let place = Place::new().await;
    let stop = CancellationToken::new();
    let mut config = place.config(|text| text);
    config.one_shot = false;
    config.interval = Duration::from_secs(1);
    place.commit(
        "{ ... }: let loop = n: if n == 0 then 0 else loop (n - 1) + loop (n - 1); in { top = loop 60; }",
    );
    let register = tokio::spawn(run(config, stop.clone(), || {}));
    for number in 1..3 {
        wait_for("the evaluator runs", async || children("nix-instantiate", &place.state) > 0).await;
        let evaluation =
            EvaluationId::new(place.number("select max(id) from evaluations where status = -1").await);
        let mut client = place.test.client().await;
        let transaction = begin(&mut client).await.unwrap();
        control::cancel_evaluation(&transaction, evaluation).await.unwrap().unwrap();
        commit(transaction).await.unwrap();
        wait_for("the evaluator is gone", async || children("nix-instantiate", &place.state) == 0).await;
        place.wait_for_evaluations("select count(*) from evaluations where status = -1", 0).await;
        // It looks each second, finds the same commit, and does not begin again by itself.
        let checked = place.texts("select coalesce(checked_at::text, 'never') from specifications").await;
        wait_for("it looks again", async || {
            place.texts("select coalesce(checked_at::text, 'never') from specifications").await != checked
        })
        .await;
        assert_eq!(place.evaluations().await, number);
        assert_eq!(place.texts("select coalesce(check_error, '') from specifications").await, [""]);
        if number == 1 {
            // Somebody asks for it again, and thinks better of it.
            evaluations::request(&place.test.client().await, "demo").await.unwrap();
        }
    }
    assert_eq!(place.texts("select message from evaluations where status = 2").await, ["canceled"; 2]);
    // A new commit is evaluated as ever.
    place.commit(EXPRESSION);
    place.wait_for_evaluations("select count(*) from evaluations where status = 0", 1).await;
    stop.cancel();
    register.await.unwrap().unwrap();
    assert_eq!(children("nix-instantiate", &place.state), 0);
}

/// Counts the living processes of a program that work for a state directory.
fn children(program: &str, state: &Path) -> usize {
    let state = state.display().to_string();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|command| String::from_utf8_lossy(&command).into_owned())
        .filter(|command| command.contains(program) && command.contains(&state))
        .count()
}
