//! The pages in a real browser.

use std::time::Duration;

use anyhow::{Context, Result};
use fantoccini::{Client, ClientBuilder, Locator};
use hauberk_tests::{Deadline, Farm, FarmConfig, LabDirectory, Launch, Process, free_port};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::json;

const GRAPH: &str = r#"
  talk = job "talk-1" ''
    echo "before the gate <b>not bold</b>"
    ${gate "talk"}
    for i in $(seq 1 50); do echo "after the gate $i"; done
    ${gate "end"}
    echo "the last line"
    touch $out
  '';
  waits = job "waits-1" "cp ${talk} $out";
"#;

/// A browser and its driver.
struct Browser {
    client: Client,
    _driver: Process,
    _directory: LabDirectory,
}

impl Browser {
    async fn start() -> Result<Self> {
        Self::start_with(json!({})).await
    }

    /// Starts one that runs no script of any page.
    async fn without_script() -> Result<Self> {
        Self::start_with(json!({ "profile.managed_default_content_settings.javascript": 2 })).await
    }

    async fn start_with(preferences: serde_json::Value) -> Result<Self> {
        let directory = LabDirectory::create()?;
        let port = free_port()?;
        let mut driver = Launch::here("chromedriver")
            .arg(format!("--port={port}"))
            .env("HOME", directory.path())
            .start("chromedriver", directory.path())?;
        driver.wait_log("started successfully", Deadline::seconds(60))?;
        let arguments =
            ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,900"];
        let capabilities = json!({ "goog:chromeOptions": { "args": arguments, "prefs": preferences } });
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities.as_object().cloned().unwrap_or_default())
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .context("starting the browser")?;
        Ok(Self { client, _driver: driver, _directory: directory })
    }

    /// Presses the button with this label, the first of them, as soon as there is one: a page that follows the farm may put another in
    /// its place meanwhile.
    async fn press(&self, label: &str) -> Result<()> {
        let button = format!("//button[normalize-space()='{label}']");
        let deadline = Deadline::seconds(30);
        loop {
            let pressed = async { self.client.find(Locator::XPath(&button)).await?.click().await };
            match pressed.await {
                Ok(()) => return Ok(()),
                Err(error) if deadline.is_over() => {
                    return Err(error).with_context(|| format!("pressing the button {label}"));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn text(&self) -> Result<String> {
        Ok(self.client.find(Locator::Css("body")).await?.text().await?)
    }

    /// Waits until the page shows `wanted`, without loading it again.
    async fn wait_for_text(&self, wanted: &str) -> Result<()> {
        let deadline = Deadline::seconds(30);
        loop {
            // Between two pages there is none.
            let text = self.text().await.unwrap_or_default();
            if text.contains(wanted) {
                return Ok(());
            }
            anyhow::ensure!(!deadline.is_over(), "{wanted:?} does not appear; the page shows:\n{text}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Keeps a picture of the page in the directory HAUBERK_SCREENSHOTS, if that is set.
    async fn keep_picture(&self, name: &str) -> Result<()> {
        if let Some(directory) = std::env::var_os("HAUBERK_SCREENSHOTS") {
            let picture = self.client.screenshot().await?;
            std::fs::create_dir_all(&directory)?;
            std::fs::write(std::path::Path::new(&directory).join(format!("{name}.png")), picture)?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn pages_show_the_farm_and_a_log_that_grows() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, slots: 2, ..FarmConfig::new()? })?;
    let port = free_port()?;
    farm.start_web(port)?;
    farm.start_all().await?;
    let (_, specification) = farm.repository("pages", GRAPH)?;
    farm.start_register(&[specification])?;
    farm.gates.wait_for_arrivals("talk", 1, Deadline::seconds(60))?;
    farm.wait_for_build("talk-1", &["running"], Deadline::seconds(10)).await?;
    let id: i64 = farm.query("select id from builds where name = 'talk-1'", &[]).await?[0].get(0);
    let browser = Browser::start().await?;
    let page = |path: &str| format!("http://127.0.0.1:{port}{path}");

    browser.client.goto(&page("/")).await?;
    browser.wait_for_text("pages").await?;
    browser.keep_picture("specifications").await?;
    browser.client.goto(&page("/workers")).await?;
    for wanted in ["worker-1", "talk-1"] {
        browser.wait_for_text(wanted).await?;
    }
    browser.keep_picture("workers").await?;
    browser.client.goto(&page("/queue")).await?;
    browser.wait_for_text("waits-1").await?;
    browser.keep_picture("queue").await?;
    browser.client.goto(&page(&format!("/build/{id}/details"))).await?;
    browser.wait_for_text("talk-1").await?;
    browser.keep_picture("build").await?;

    // The log follows the build; the page is never loaded again.
    browser.client.goto(&page(&format!("/build/{id}/log"))).await?;
    browser.wait_for_text("before the gate <b>not bold</b>").await?;
    browser.client.execute("window.loadedOnce = true;", vec![]).await?;
    assert!(!browser.text().await?.contains("after the gate"));
    farm.gates.open("talk")?;
    browser.wait_for_text("after the gate 50").await?;
    assert!(!browser.text().await?.contains("the last line"));
    browser.keep_picture("log").await?;
    farm.gates.open("end")?;
    browser.wait_for_text("the last line").await?;
    let same = browser.client.execute("return window.loadedOnce === true;", vec![]).await?;
    assert_eq!(same, json!(true), "the page was loaded again");
    let raw = browser.text().await?;
    assert_eq!(raw.matches("after the gate 7\n").count(), 1, "a line is there once:\n{raw}");

    farm.wait_for_the_end(Deadline::seconds(60)).await?;
    browser.client.goto(&page(&format!("/build/{id}/details"))).await?;
    browser.wait_for_text("worker-1").await?;
    browser.client.clone().close().await?;
    farm.stop_all()
}

/// A build that waits at a gate, one that needs it, and one that has nothing to do with them.
const OPERATED: &str = r#"
  first = job "first-1" ''
    ${gate "first"}
    echo first > $out
  '';
  second = job "second-1" "cat ${first} > $out";
  other = job "other-1" "echo other > $out";
"#;

const TOKEN: &str = "annas-token-for-the-browser";

/// Starts web with these options besides.
fn start_web(farm: &mut Farm, port: u16, options: &[&str]) -> Result<()> {
    let mut process = farm
        .hauberk()
        .args(["web", "--database", &farm.postgres.connection_string(), "--port", &port.to_string()])
        .args(options)
        .start("web", farm.directory())?;
    process.wait_ready(Deadline::seconds(60))?;
    farm.web = Some(process);
    Ok(())
}

fn operate(farm: &Farm, arguments: &[&str]) -> Result<String> {
    farm.hauberk().args(arguments).args(["--database", &farm.postgres.connection_string()]).run()
}

#[tokio::test]
async fn operators_press_buttons_and_pages_follow_the_farm() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, ..FarmConfig::new()? })?;
    let port = free_port()?;
    let tokens = farm.directory().join("tokens");
    std::fs::write(&tokens, format!("anna {TOKEN}\n"))?;
    std::fs::set_permissions(&tokens, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    start_web(&mut farm, port, &["--operator-token-file", &tokens.display().to_string()])?;
    farm.start_all().await?;
    let (_, specification) = farm.repository("pages", OPERATED)?;
    farm.start_register(&[specification])?;
    farm.gates.wait_for_arrivals("first", 1, Deadline::seconds(60))?;
    farm.wait_for_build("first-1", &["running"], Deadline::seconds(10)).await?;
    let id: i64 = farm.query("select id from builds where name = 'first-1'", &[]).await?[0].get(0);
    let browser = Browser::start().await?;
    let page = |path: &str| format!("http://127.0.0.1:{port}{path}");
    let details = page(&format!("/build/{id}/details"));

    // Nobody is an operator before the token was shown.
    browser.client.goto(&details).await?;
    browser.wait_for_text("first-1").await?;
    assert!(!browser.text().await?.contains("Cancel"));
    browser.client.goto(&page("/login")).await?;
    let field = browser.client.find(Locator::Css("input[name=token]")).await?;
    field.send_keys(TOKEN).await?;
    browser.press("Log in").await?;
    browser.wait_for_text("anna (pages)").await?;
    browser.keep_picture("operators").await?;

    // The workers' page follows what is done elsewhere; it is never loaded again.
    browser.client.goto(&page("/workers")).await?;
    browser.wait_for_text("connected").await?;
    browser.client.execute("window.loadedOnce = true;", vec![]).await?;
    operate(&farm, &["worker", "pause", "worker-1", "--reason", "a <b>new</b> disk"])?;
    browser.wait_for_text("Paused: a <b>new</b> disk").await?;
    // Also after the database was away.
    farm.postgres.kill9()?;
    farm.postgres.start()?;
    hauberk_tests::wait_for("the worker is directed", Deadline::seconds(30), || {
        Ok(operate(&farm, &["worker", "pause", "worker-1", "--reason", "another disk"]).ok())
    })?;
    browser.wait_for_text("Paused: another disk").await?;
    let same = browser.client.execute("return window.loadedOnce === true;", vec![]).await?;
    assert_eq!(same, json!(true), "the page was loaded again");
    browser.keep_picture("workers_of_operators").await?;
    browser.press("Resume").await?;
    browser.wait_for_text("worker-1: given work again by anna (pages)").await?;
    browser.wait_for_text("worker-1: paused (another disk) by root").await?;

    // A build is canceled and begins anew.
    browser.client.goto(&details).await?;
    browser.press("Cancel").await?;
    farm.wait_for_build("first-1", &["canceled"], Deadline::seconds(40)).await?;
    browser.wait_for_text("canceled by anna (pages)").await?;
    browser.keep_picture("build_of_operators").await?;
    farm.wait_for_build("other-1", &["succeeded"], Deadline::seconds(60)).await?;
    browser.client.goto(&page("/queue")).await?;
    browser.wait_for_text("Nothing is queued").await?;
    browser.client.execute("window.loadedOnce = true;", vec![]).await?;
    operate(&farm, &["build", "restart", &id.to_string()])?;
    for name in ["first-1", "second-1"] {
        browser.wait_for_text(name).await?;
    }
    let same = browser.client.execute("return window.loadedOnce === true;", vec![]).await?;
    assert_eq!(same, json!(true), "the page was loaded again");
    browser.keep_picture("queue_of_operators").await?;

    // Whoever cancels an evaluation is asked first.
    let evaluation: i64 = farm.query("select max(id) from evaluations", &[]).await?[0].get(0);
    browser.client.goto(&page(&format!("/eval/{evaluation}"))).await?;
    browser.press("Cancel …").await?;
    browser.wait_for_text("Cancel evaluation").await?;
    assert_eq!(farm.state_of("second-1").await?, "waiting");
    browser.keep_picture("confirm").await?;
    browser.press("Cancel the evaluation").await?;
    farm.wait_for_build("second-1", &["canceled"], Deadline::seconds(40)).await?;
    browser.wait_for_text("canceled by anna (pages)").await?;
    browser.client.clone().close().await?;

    // On the machine itself no token is needed, and nowhere a script.
    farm.web.take().expect("web was started").stop(Deadline::seconds(20))?;
    let port = free_port()?;
    start_web(&mut farm, port, &["--operators", "loopback"])?;
    let browser = Browser::without_script().await?;
    let page = |path: &str| format!("http://localhost:{port}{path}");
    browser.client.goto(&page("/login")).await?;
    browser.wait_for_text("root (pages, this machine)").await?;
    browser.client.goto(&page("/workers")).await?;
    let field = browser.client.find(Locator::Css("input[name=reason]")).await?;
    field.send_keys("by hand").await?;
    browser.press("Pause").await?;
    browser.wait_for_text("worker-1: paused (by hand) by root (pages, this machine)").await?;
    assert!(operate(&farm, &["worker", "list"])?.contains("paused"));
    browser.client.clone().close().await?;
    farm.stop_all()
}
