//! Files that a specification names are taken out of outputs, offered for download, and removed when nobody wants them any more.

use std::{
    fs::{self, File, FileTimes},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use hauberk_tests::{Deadline, Farm, FarmConfig, Specification};
use serde_json::Value;

/// Images with their checksums, made by the builder, and something without products.
fn graph(version: u32, megabytes: u32) -> String {
    format!(
        r#"
          image = job "image-{version}" ''
            mkdir -p $out/iso $out/nix-support
            head -c {megabytes}M /dev/urandom > $out/iso/system-{version}.img
            echo a smaller one, {version} > "$out/iso/small {version}.img"
            cd $out/iso
            sha256sum *.img > ../nix-support/sums
            ln -s system-{version}.img latest.img
            ln -s /etc/passwd passwd.img
          '';
          manual = job "manual-{version}" ''
            mkdir -p $out/share/doc
            echo chapter {version} > $out/share/doc/chapter
            ln -s chapter $out/share/doc/first
            printf '#!/bin/sh\n' > $out/share/doc/run
            chmod +x $out/share/doc/run
          '';
          other = job "other-{version}" "echo {version} > $out";
        "#
    )
}

const BUILD_OUTPUTS: [[&str; 4]; 5] = [
    ["^image$", "image", "out", "iso/*.img"],
    ["^image$", "sums", "out", "nix-support/sums"],
    ["manual", "doc", "out", "share/doc"],
    ["manual", "lost", "out", "share/*.pdf"],
    ["manual", "elsewhere", "dev", ""],
];

/// Whether everything that is wanted of this build was decided about.
const DECIDED: &str = "select count(*) > 0 and bool_and(r.state <> 'wanted') from product_requests r \
                       join builds b on b.id = r.build_id where b.name = $1";

/// Whether everything that is wanted was decided about.
const ALL_DECIDED: &str = "select bool_and(state <> 'wanted') from product_requests";

async fn product(farm: &Farm, name: &str) -> Result<(i64, String, i64)> {
    let rows = farm
        .query("select id, encode(sha256, 'hex'), file_size from build_products where name = $1", &[&name])
        .await?;
    let row = rows.first().with_context(|| format!("{name} is a product"))?;
    Ok((row.get(0), row.get(1), row.get(2)))
}

fn show(farm: &Farm, build: i64, json: bool) -> Result<String> {
    let location = farm.postgres.connection_string();
    let launch = farm.hauberk().args(["build", "--database", &location, "show", &build.to_string()]);
    if json { launch.arg("--json").run() } else { launch.run() }
}

fn curl(farm: &Farm, options: &[&str], url: &str) -> Result<String> {
    farm.server_machine.command("curl").args(["--silent", "--show-error"]).args(options).arg(url).run()
}

fn sha256(file: &Path) -> Result<String> {
    let said = hauberk_tests::Launch::here("sha256sum").arg(file).run()?;
    Ok(said.split_whitespace().next().context("it says a hash")?.to_owned())
}

/// Files of products that are being written.
fn unfinished(farm: &Farm) -> Vec<PathBuf> {
    let own = fs::read_dir(farm.cache().join("products/tmp")).into_iter().flatten().flatten();
    own.flat_map(|own| fs::read_dir(own.path()).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .collect()
}

/// Products that have their names.
fn finished(farm: &Farm) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(farm.cache().join("products"))? {
        count += usize::from(entry?.path().is_file());
    }
    Ok(count)
}

/// Makes it so that nobody has used anything for two days.
fn age(cache: &Path) -> Result<()> {
    let times = FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(2 * 24 * 3600));
    for folder in [cache.to_owned(), cache.join("nar"), cache.join("products")] {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_file() {
                File::options().write(true).open(&path)?.set_times(times)?;
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_a_specification_names_are_offered_and_removed() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, ..FarmConfig::new()? })?;
    farm.start_all().await?;
    let (repository, bare) = farm.repository("products", &graph(1, 5))?;
    let bare = Specification { keep_evaluations: Some(1), ..bare };
    farm.start_register(std::slice::from_ref(&bare))?;
    farm.wait_for_build("image-1", &["succeeded"], Deadline::seconds(120)).await?;
    farm.wait_for_the_end(Deadline::seconds(60)).await?;
    assert_eq!(finished(&farm)?, 0);

    // Named afterwards, they come out of what was built long before.
    let specification = Specification { build_outputs: BUILD_OUTPUTS.to_vec(), ..bare };
    let mut register = farm.register.take().context("the register runs")?;
    register.stop(Deadline::seconds(40))?;
    farm.start_register(std::slice::from_ref(&specification))?;
    for build in ["image-1", "manual-1"] {
        farm.wait_until("its products are decided about", Deadline::seconds(90), DECIDED, &[&build]).await?;
    }
    farm.expect_states(&[("image-1", "succeeded"), ("manual-1", "succeeded")]).await?;
    let attempts = farm.query("select count(*) from attempts", &[]).await?;
    assert_eq!(attempts[0].get::<_, i64>(0), 3, "nothing is built again");
    // Of the image and its link there is one file.
    assert_eq!(finished(&farm)?, 4);
    the_command_line_shows_them(&farm).await?;

    let mut web = farm
        .hauberk_on_server()
        .args(["web", "--database", &farm.postgres.connection_string(), "--port", "8080"])
        .start("web-elsewhere", farm.directory())?;
    web.wait_ready(Deadline::seconds(60))?;
    downloads_are_whole(&farm, "http://127.0.0.1:8080", true).await?;
    web.stop(Deadline::seconds(40))?;
    let mut web = farm
        .hauberk_on_server()
        .args(["web", "--database", &farm.postgres.connection_string(), "--port", "8080", "--cache"])
        .arg(farm.cache())
        .start("web-here", farm.directory())?;
    web.wait_ready(Deadline::seconds(60))?;
    downloads_are_whole(&farm, "http://127.0.0.1:8080", false).await?;

    // A server that is killed while it takes them leaves nothing half done.
    repository.write("release.nix", &hauberk_tests::jobs(&graph(2, 300)))?;
    repository.commit("Go on")?;
    farm.look_now("products").await?;
    let deadline = Deadline::seconds(240);
    while !unfinished(&farm).iter().any(|file| file.metadata().is_ok_and(|file| file.len() > 1 << 20)) {
        ensure!(!deadline.is_over(), "no product was ever begun");
        farm.check_processes()?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut server = farm.server.take().context("the server runs")?;
    server.kill9()?;
    ensure!(product(&farm, "system-2.img").await.is_err(), "it was killed too late");
    // The manual's may have come before.
    ensure!(finished(&farm)? <= 5, "a part of the image has a name");
    farm.start_server()?;
    farm.wait_until("its products are decided about", Deadline::seconds(120), DECIDED, &[&"image-2"]).await?;
    let (_, hash, size) = product(&farm, "system-2.img").await?;
    assert_eq!(size, 300 << 20);
    let output = farm.output_of("image-2").await?;
    let sums = farm.workers[0].machine.command("cat").arg(format!("{output}/nix-support/sums")).run()?;
    ensure!(sums.contains(&format!("{hash}  system-2.img")), "{hash}: {sums}");
    assert!(unfinished(&farm).is_empty(), "{:?}", unfinished(&farm));

    // What somebody has removed is taken again.
    let files = fs::read_dir(farm.cache().join("products"))?;
    let lost =
        files.flatten().map(|entry| entry.path()).find(|path| path.is_file()).context("there are files")?;
    fs::remove_file(&lost)?;
    let mut server = farm.server.take().context("the server runs")?;
    server.stop(Deadline::seconds(40))?;
    farm.start_server()?;
    let deadline = Deadline::seconds(60);
    while !lost.exists() {
        ensure!(!deadline.is_over(), "{} did not come back", lost.display());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The file has its name before its rows are there.
    farm.wait_until("all are decided about", Deadline::seconds(60), ALL_DECIDED, &[]).await?;

    what_nobody_wants_is_removed(&farm).await?;
    web.stop(Deadline::seconds(40))?;
    farm.stop_all()
}

async fn the_command_line_shows_them(farm: &Farm) -> Result<()> {
    let build: i64 = farm.query("select id from builds where name = 'image-1'", &[]).await?[0].get(0);
    let shown: Value = serde_json::from_str(&show(farm, build, true)?)?;
    let products = shown["products"].as_array().context("it has products")?;
    let names: Vec<_> = products.iter().filter_map(|product| product["name"].as_str()).collect();
    assert_eq!(names, ["latest.img", "small 1.img", "system-1.img", "sums"], "{shown}");
    let said = shown["missing_products"][0]["message"].as_str().unwrap_or_default();
    ensure!(said.contains("passwd.img") && said.contains("not in the store"), "{shown}");
    let text = show(farm, build, false)?;
    ensure!(text.contains("product       image") && text.contains("sha256-"), "{text}");

    let build: i64 = farm.query("select id from builds where name = 'manual-1'", &[]).await?[0].get(0);
    let text = show(farm, build, false)?;
    for words in ["doc.tar", "there is no `share/*.pdf` in it", "the build has no output `dev`"] {
        ensure!(words == "doc.tar" || text.contains(words), "{words}: {text}");
    }
    Ok(())
}

async fn downloads_are_whole(farm: &Farm, web: &str, leads: bool) -> Result<()> {
    let (id, hash, size) = product(farm, "system-1.img").await?;
    let url = format!("{web}/download/{id}");
    let head = curl(farm, &["--head"], &url)?.to_lowercase();
    if leads {
        ensure!(head.starts_with("http/1.1 302"), "{head}");
        ensure!(head.contains(&format!("location: {}/product/", farm.publish_url())), "{head}");
    } else {
        ensure!(head.starts_with("http/1.1 200"), "{head}");
    }
    let head = curl(farm, &["--head", "--location"], &url)?.to_lowercase();
    for field in [
        "content-disposition: attachment; filename=\"system-1.img\"",
        "x-content-type-options: nosniff",
        "content-type: application/octet-stream",
        "content-security-policy: default-src 'none'; sandbox",
        "accept-ranges: bytes",
        &format!("content-length: {size}"),
    ] {
        ensure!(head.contains(field), "{field}: {head}");
    }
    let place = farm.directory().join("downloaded");
    let name = place.display().to_string();
    let _ = fs::remove_file(&place);
    // The first part, and then the rest: a download that was cut.
    curl(farm, &["--fail", "--location", "--range", "0-999999", "--output", &name], &url)?;
    assert_eq!(fs::metadata(&place)?.len(), 1_000_000);
    curl(farm, &["--fail", "--location", "--continue-at", "-", "--output", &name], &url)?;
    assert_eq!(sha256(&place)?, hash);
    let output = farm.output_of("image-1").await?;
    let sums = farm.workers[0].machine.command("cat").arg(format!("{output}/nix-support/sums")).run()?;
    ensure!(sums.contains(&format!("{hash}  system-1.img")), "{hash}: {sums}");
    let code = ["--location", "--output", "/dev/null", "--write-out", "%{http_code}"];
    let beyond = ["--range", "5242880-"].into_iter().chain(code).collect::<Vec<_>>();
    assert_eq!(curl(farm, &beyond, &url)?, "416");
    assert_eq!(curl(farm, &code, &format!("{web}/download/999999"))?, "404");

    let (id, ..) = product(farm, "doc.tar").await?;
    curl(farm, &["--fail", "--location", "--output", &name], &format!("{web}/download/{id}"))?;
    let list = hauberk_tests::Launch::here("tar").args(["--utc", "-tvf", &name]).run()?;
    let lines: Vec<_> =
        list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        lines,
        [
            "drwxr-xr-x 0/0 0 1970-01-01 00:00 doc/",
            "-rw-r--r-- 0/0 10 1970-01-01 00:00 doc/chapter",
            "lrwxrwxrwx 0/0 0 1970-01-01 00:00 doc/first -> chapter",
            "-rwxr-xr-x 0/0 10 1970-01-01 00:00 doc/run",
        ]
    );

    let latest = curl(farm, &["--head"], &format!("{web}/search/latest/doc?query=spec:products+manual"))?;
    ensure!(latest.contains(&format!("location: /download/{id}")), "{latest}");
    assert_eq!(curl(farm, &code, &format!("{web}/search/latest/doc?query=spec:other"))?, "404");

    let build: i64 = farm.query("select id from builds where name = 'image-1'", &[]).await?[0].get(0);
    let object: Value = serde_json::from_str(&curl(farm, &[], &format!("{web}/build/{build}"))?)?;
    let products = object["buildproducts"].as_array().context("it has products")?;
    let kinds: Vec<_> = products.iter().filter_map(|product| product["type"].as_str()).collect();
    assert_eq!(kinds, ["image", "image", "image", "sums"]);
    ensure!(products.iter().any(|product| product["file-size"] == 5 << 20), "{object}");
    let jobsets: Value = serde_json::from_str(&curl(farm, &[], &format!("{web}/jobsets"))?)?;
    assert_eq!(jobsets[0]["build-outputs"][0]["path"], "iso/*.img", "{jobsets}");
    let page = curl(farm, &[], &format!("{web}/build/{build}/details"))?;
    for words in ["<h2>Products</h2>", ">system-1.img</a>", "sha256-", "passwd.img"] {
        ensure!(page.contains(words), "{words}: {page}");
    }
    Ok(())
}

async fn what_nobody_wants_is_removed(farm: &Farm) -> Result<()> {
    let collect = |options: &[&str]| {
        farm.hauberk()
            .args(["gc", "--database", &farm.postgres.connection_string(), "--cache"])
            .arg(farm.cache())
            .args(options)
            .run()
    };
    let (old, old_hash, _) = product(farm, "system-1.img").await?;
    let before = finished(farm)?;
    age(&farm.cache())?;
    let said = collect(&["--dry-run"])?;
    ensure!(said.contains(" system-1.img") || said.contains(" latest.img"), "{said}");
    ensure!(said.contains("7 of "), "three outputs and four files go: {said}");
    assert_eq!(finished(farm)?, before);
    let said = collect(&[])?;
    ensure!(said.starts_with("7 items removed"), "{said}");
    assert_eq!(finished(farm)?, before - 4);
    ensure!(product(farm, "system-1.img").await.is_err(), "{old} {old_hash} is still there");
    let code = ["--output", "/dev/null", "--write-out", "%{http_code}"];
    assert_eq!(curl(farm, &code, &format!("http://127.0.0.1:8080/download/{old}"))?, "404");
    // Those of the last evaluation are there, whatever room there is.
    let (kept, hash, _) = product(farm, "system-2.img").await?;
    let full = farm
        .hauberk()
        .args(["gc", "--database", &farm.postgres.connection_string(), "--max-size", "1", "--cache"])
        .arg(farm.cache())
        .output()?;
    assert_eq!(full.status.code(), Some(1));
    assert_eq!(finished(farm)?, before - 4);
    let place = farm.directory().join("kept");
    let url = format!("http://127.0.0.1:8080/download/{kept}");
    curl(farm, &["--fail", "--location", "--output", &place.display().to_string()], &url)?;
    assert_eq!(sha256(&place)?, hash);
    Ok(())
}

/// An image of this many bytes, as installation images are.
const IMAGE: u64 = 800_000_000;

/// Most anonymous memory that the server may have with it, in KiB.
const MEMORY_KIB: u64 = 160 * 1024;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs 4 GB of disk, and a minute: cargo test -p hauberk-tests --test products -- --ignored --nocapture"]
async fn a_large_image_is_offered() -> Result<()> {
    let graph = format!(
        r#"
          image = job "image-1" ''
            mkdir $out
            dd if=/dev/urandom bs=1000000 count={} of=$out/system-1.img
            sha256sum < $out/system-1.img > $out/sum
          '';
        "#,
        IMAGE / 1_000_000
    );
    let mut farm = Farm::create(FarmConfig { workers: 1, ..FarmConfig::new()? })?;
    farm.start_all().await?;
    let (_, specification) = farm.repository("products", &graph)?;
    let build_outputs = vec![["image", "iso", "out", "*.img"]];
    farm.start_register(&[Specification { build_outputs, ..specification }])?;
    farm.wait_for_build("image-1", &["succeeded"], Deadline::seconds(400)).await?;
    let succeeded = std::time::Instant::now();
    farm.wait_until("its product is taken", Deadline::seconds(200), DECIDED, &[&"image-1"]).await?;
    let taken = succeeded.elapsed();
    let (_, hash, size) = product(&farm, "system-1.img").await?;
    assert_eq!(size, i64::try_from(IMAGE)?);
    let output = farm.output_of("image-1").await?;
    let sum = fs::read_to_string(farm.workers[0].machine.outside(&output).join("sum"))?;
    assert_eq!(sum.split_whitespace().next(), Some(hash.as_str()));

    // Half of it, and then the rest; a middle.
    let (web, directory) = ("http://127.0.0.1:8080", farm.directory().to_owned());
    let mut pages = farm
        .hauberk_on_server()
        .args(["web", "--database", &farm.postgres.connection_string(), "--port", "8080"])
        .start("web", &directory)?;
    pages.wait_ready(Deadline::seconds(60))?;
    let (id, ..) = product(&farm, "system-1.img").await?;
    let url = format!("{web}/download/{id}");
    let place = directory.join("image");
    let name = place.display().to_string();
    let began = std::time::Instant::now();
    curl(&farm, &["--fail", "--location", "--range", "0-399999999", "--output", &name], &url)?;
    curl(&farm, &["--fail", "--location", "--continue-at", "-", "--output", &name], &url)?;
    let downloaded = began.elapsed();
    assert_eq!(sha256(&place)?, hash);
    let part = directory.join("part").display().to_string();
    curl(&farm, &["--fail", "--location", "--range", "600000000-600000999", "--output", &part], &url)?;
    let whole = File::open(&place)?;
    let mut expected = vec![0; 1000];
    std::os::unix::fs::FileExt::read_exact_at(&whole, &mut expected, 600_000_000)?;
    assert!(fs::read(&part)? == expected);

    let server = farm.server.as_ref().context("the server runs")?.id();
    let status = fs::read_to_string(format!("/proc/{server}/status"))?;
    let kib = |name: &str| -> Option<u64> {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse().ok())
    };
    let (now, most) = (kib("RssAnon:").context("its memory is told")?, kib("VmHWM:").unwrap_or_default());
    println!(
        "taken {taken:.1?} after the build succeeded, downloaded in {downloaded:.1?}; server: {now} KiB of anonymous memory, at most {most} KiB of any"
    );
    ensure!(now < MEMORY_KIB, "the server holds {now} KiB");
    pages.stop(Deadline::seconds(40))?;
    farm.stop_all()
}
