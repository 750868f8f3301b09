//! Outputs that nobody wants any more leave the cache, and come back when somebody does.

use std::{
    fs::{self, File, FileTimes},
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use hauberk_tests::{Deadline, Farm, FarmConfig, Specification};

/// A library, and a program that refers to it.
fn graph(version: u32) -> String {
    format!(
        r#"
          library = job "library-{version}" "echo library {version} > $out";
          program = job "program-{version}" "echo ${{library}} > $out";
          same = job "same-1" "echo the same > $out";
        "#
    )
}

/// Makes it so that nobody has used anything for two days.
fn age(directory: &Path) -> Result<()> {
    let long_ago = SystemTime::now() - Duration::from_secs(2 * 24 * 3600);
    let times = FileTimes::new().set_accessed(long_ago).set_modified(long_ago);
    for folder in [directory.to_owned(), directory.join("nar")] {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_file() {
                File::options().write(true).open(&path)?.set_times(times)?;
            }
        }
    }
    Ok(())
}

fn collect(farm: &Farm, options: &[&str]) -> Result<(Option<i32>, String, String)> {
    let output = farm
        .hauberk()
        .args(["gc", "--database", &farm.postgres.connection_string(), "--cache"])
        .arg(farm.cache())
        .args(options)
        .output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((output.status.code(), text(output.stdout), text(output.stderr)))
}

async fn narinfo_of(farm: &Farm, build: &str) -> Result<std::path::PathBuf> {
    let output = farm.output_of(build).await?;
    let hash = output.rsplit('/').next().and_then(|name| name.split('-').next());
    Ok(farm.cache().join(format!("{}.narinfo", hash.context("it is a store path")?)))
}

#[tokio::test]
async fn what_the_last_evaluation_does_not_need_goes_and_is_built_again_when_wanted() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, ..FarmConfig::new()? })?;
    farm.start_all().await?;
    let (repository, specification) = farm.repository("collection", &graph(1))?;
    let specification = Specification { keep_evaluations: Some(1), ..specification };
    farm.start_register(&[specification])?;
    farm.wait_for_build("program-1", &["succeeded"], Deadline::seconds(90)).await?;
    farm.wait_for_the_end(Deadline::seconds(60)).await?;
    // All of it is wanted.
    age(&farm.cache())?;
    let (code, said, _) = collect(&farm, &["--dry-run"])?;
    assert_eq!((code, said.lines().count()), (Some(0), 1), "{said}");
    assert!(said.starts_with("0 of 3 items would go"), "{said}");

    let jobs = |version| hauberk_tests::jobs(&graph(version));
    repository.write("release.nix", &jobs(2))?;
    repository.commit("Go on")?;
    farm.look_now("collection").await?;
    farm.wait_for_build("program-2", &["succeeded"], Deadline::seconds(90)).await?;
    farm.wait_for_the_end(Deadline::seconds(60)).await?;
    let old = [narinfo_of(&farm, "program-1").await?, narinfo_of(&farm, "library-1").await?];
    let kept = [narinfo_of(&farm, "program-2").await?, narinfo_of(&farm, "same-1").await?];
    // What came lately stays.
    let (_, said, _) = collect(&farm, &["--grace", "4d"])?;
    assert!(said.starts_with("0 items removed"), "{said}");
    age(&farm.cache())?;
    let (code, said, _) = collect(&farm, &["--dry-run"])?;
    assert_eq!((code, said.lines().count()), (Some(0), 3), "{said}");
    for name in ["-program-1 ", "-library-1 ", "2 of 5 items would go"] {
        assert!(said.contains(name), "{name}: {said}");
    }
    assert!(old.iter().chain(&kept).all(|path| path.exists()));

    let (code, said, complaint) = collect(&farm, &[])?;
    assert_eq!(code, Some(0), "{complaint}");
    assert!(said.starts_with("2 items removed") && said.contains("3 items stay"), "{said}");
    assert!(old.iter().all(|path| !path.exists()) && kept.iter().all(|path| path.exists()));
    let nars = fs::read_dir(farm.cache().join("nar"))?.count();
    assert_eq!(nars, 3);
    farm.hauberk().args(["cache", "verify"]).arg(farm.cache()).run()?;
    // History is as it was, and says that the outputs are gone.
    farm.expect_states(&[("program-1", "succeeded"), ("library-1", "succeeded")]).await?;
    let gone = "select count(*) from builds b join outputs o on o.build_id = b.id \
                where b.collected_at is not null and o.nar_hash is null";
    assert_eq!(farm.query(gone, &[]).await?[0].get::<_, i64>(0), 2);

    // No room for what is needed is an error, and nothing that is needed goes.
    let (code, _, complaint) = collect(&farm, &["--max-size", "1"])?;
    assert_eq!(code, Some(1));
    assert!(complaint.contains("more than the 1 allowed"), "{complaint}");
    assert!(kept.iter().all(|path| path.exists()));

    // Wanted again, they come again.
    repository.write("release.nix", &jobs(1))?;
    repository.commit("Go back")?;
    farm.look_now("collection").await?;
    farm.wait_until(
        "the old builds have succeeded once more",
        Deadline::seconds(120),
        "select count(*) = 2 from builds where name in ('program-1', 'library-1') and state = 'succeeded' and generation = 2 \
         and collected_at is null",
        &[],
    )
    .await?;
    farm.wait_for_the_end(Deadline::seconds(60)).await?;
    assert!(old.iter().all(|path| path.exists()));
    farm.hauberk().args(["cache", "verify"]).arg(farm.cache()).run()?;
    farm.stop_all()
}
