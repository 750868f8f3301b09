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
        let directory = LabDirectory::create()?;
        let port = free_port()?;
        let mut driver = Launch::here("chromedriver")
            .arg(format!("--port={port}"))
            .env("HOME", directory.path())
            .start("chromedriver", directory.path())?;
        driver.wait_log("started successfully", Deadline::seconds(60))?;
        let arguments =
            ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,900"];
        let capabilities = json!({ "goog:chromeOptions": { "args": arguments } });
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities.as_object().cloned().unwrap_or_default())
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .context("starting the browser")?;
        Ok(Self { client, _driver: driver, _directory: directory })
    }

    async fn text(&self) -> Result<String> {
        Ok(self.client.find(Locator::Css("body")).await?.text().await?)
    }

    /// Waits until the page shows `wanted`, without loading it again.
    async fn wait_for_text(&self, wanted: &str) -> Result<()> {
        let deadline = Deadline::seconds(30);
        loop {
            let text = self.text().await?;
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
