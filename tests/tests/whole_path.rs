//! From a git commit to a substitute.

use anyhow::Result;
use hauberk_tests::{Deadline, Farm, FarmConfig};

/// Two libraries that are built at the same time, and a program that needs both.
const GRAPH: &str = r#"
  left = job "left-1" ''
    ${gate "left"}
    mkdir $out
    echo '#define LEFT 40' > $out/left.h
  '';
  right = job "right-1" ''
    ${gate "right"}
    mkdir $out
    echo '#define RIGHT 2' > $out/right.h
  '';
  sum = job "sum-1" ''
    mkdir -p $out/bin
    echo '#include <left.h>' > sum.c
    echo '#include <right.h>' >> sum.c
    echo 'int main(void) { return LEFT + RIGHT; }' >> sum.c
    gcc -I${left} -I${right} sum.c -o $out/bin/sum
    echo ${left} ${right} > $out/inputs
  '';
"#;

#[tokio::test]
async fn a_commit_becomes_a_substitute_across_two_workers() -> Result<()> {
    let mut farm = Farm::create(FarmConfig::new()?)?;
    farm.start_all().await?;
    let (repository, specification) = farm.repository("sums", GRAPH)?;
    farm.start_register(&[specification])?;

    // Both gates are reached at once only if each worker, which has one slot, builds one of the two.
    farm.gates.wait_for_arrivals("left", 1, Deadline::seconds(60))?;
    farm.gates.wait_for_arrivals("right", 1, Deadline::seconds(60))?;
    farm.wait_for_build("sum-1", &["waiting"], Deadline::seconds(10)).await?;
    farm.gates.open("left")?;
    farm.wait_for_build("left-1", &["succeeded"], Deadline::seconds(30)).await?;
    assert_eq!(farm.state_of("sum-1").await?, "waiting");
    farm.gates.open("right")?;
    farm.wait_for_the_end(Deadline::seconds(60)).await?;
    farm.expect_states(&[("left-1", "succeeded"), ("right-1", "succeeded"), ("sum-1", "succeeded")]).await?;
    let crossed: i64 = farm
        .query(
            "select count(*) from build_dependencies d join builds b on b.id = d.build_id \
             join attempts a on a.id = b.attempt_id join builds i on i.id = d.dependency_id \
             join attempts o on o.id = i.attempt_id where a.worker_id <> o.worker_id",
            &[],
        )
        .await?[0]
        .get(0);
    assert_eq!(crossed, 1, "one of the two inputs was built on the other worker");

    // What the stock client makes of it.
    let output = farm.output_of("sum-1").await?;
    let key = farm.server_signing_key().to_owned();
    let user = farm.user_machine("user", &key)?;
    user.command("nix-store").args(["--realise", &output]).run()?;
    assert_eq!(user.command(format!("{output}/bin/sum")).output()?.status.code(), Some(42));
    user.command("nix-store").args(["--verify", "--check-contents"]).run()?;
    // The closure came along.
    let inputs = user.command("cat").arg(format!("{output}/inputs")).run()?;
    for input in inputs.split_whitespace() {
        assert!(user.outside(input).exists(), "{input} was not substituted");
    }

    // The commit's successor needs only what changed.
    repository.write(
        "release.nix",
        &hauberk_tests::jobs(&GRAPH.replace("int main(void) { return", "int main(void) { return 1 +")),
    )?;
    repository.commit("Add one")?;
    farm.look_now("sums").await?;
    farm.wait_for_evaluations(2, Deadline::seconds(60)).await?;
    farm.wait_for_the_end(Deadline::seconds(60)).await?;
    let builds: i64 = farm.query("select count(*) from builds", &[]).await?[0].get(0);
    assert_eq!(builds, 4, "{}", farm.describe_builds().await);
    assert_eq!(
        (farm.gates.arrivals("left"), farm.gates.arrivals("right")),
        (1, 1),
        "nothing was built twice"
    );
    farm.stop_all()
}

#[tokio::test]
async fn the_log_is_kept_whole() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, ..FarmConfig::new()? })?;
    farm.start_all().await?;
    let (_, specification) = farm.repository(
        "talk",
        r#"talkative = job "talkative-1" "seq 1 200000; printf 'no newline at the end'; touch $out";"#,
    )?;
    farm.start_register(&[specification])?;
    farm.wait_for_build("talkative-1", &["succeeded"], Deadline::seconds(90)).await?;
    farm.wait_until(
        "the log is complete",
        Deadline::seconds(30),
        "select bool_and(log_complete) from attempts",
        &[],
    )
    .await?;
    let path: String = farm.query("select log_path from attempts", &[]).await?[0].get(0);
    let text =
        hauberk_tests::Launch::here("gzip").args(["-dc"]).arg(farm.cache().join("logs").join(path)).run()?;
    // The worker says in lines of its own what it does before and after the build.
    let said: Vec<&str> = text.lines().filter(|line| !line.starts_with("hauberk: ")).collect();
    let wanted: Vec<String> =
        (1..=200_000).map(|number| number.to_string()).chain(["no newline at the end".to_owned()]).collect();
    assert!(said == wanted, "the log's {} lines are not those of the build", said.len());
    farm.stop_all()
}
