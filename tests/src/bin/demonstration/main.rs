//! A real farm in small, to look at: two workers with stores of their own build a git repository of Nix expressions.

mod api;
mod build;
mod expectations;
mod progress;
mod substitution;
mod table;

use std::{io::IsTerminal, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;
use futures::StreamExt;
use hauberk_tests::{Deadline, Farm, FarmConfig, Repository, Specification, free_port, hauberk_program};
use tokio_postgres::{AsyncMessage, NoTls};

use crate::{build::Build, expectations::Expectations, progress::Progress, substitution::Substitution};

/// How long the whole demonstration may take.
const PATIENCE: Duration = Duration::from_secs(900);
/// How long to wait for a notification before looking anyway.
const SWEEP: Duration = Duration::from_secs(2);

/// Shows a farm at work: PostgreSQL, a server, a web page and workers with their own Nix stores, on machines made of namespaces.
#[derive(Debug, Parser)]
#[command(name = "hauberk-demonstration", version)]
struct Arguments {
    /// End after the demonstration, also on a terminal
    #[arg(long)]
    once: bool,
    /// How many worker machines
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=50))]
    workers: u8,
    /// How many builds each worker runs at once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    slots: u8,
    /// Where the web page is on 127.0.0.1; 0 takes any free port
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// The hauberk program [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    hauberk: Option<PathBuf>,
    /// The directory with the repository's content
    #[arg(long, value_name = "DIRECTORY", default_value = "etc/demo")]
    expressions: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    // Plain HTTP only, but the client wants to know whose cryptography it would use.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match demonstrate(Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("hauberk-demonstration: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs it all and tells whether everything ended as expected.
async fn demonstrate(arguments: Arguments) -> Result<bool> {
    // Machines have working directories of their own.
    let hauberk = match &arguments.hauberk {
        Some(program) => std::path::absolute(program).context("finding the working directory")?,
        None => hauberk_program()?,
    };
    let progress = Progress::new(std::io::stdout().is_terminal());
    progress.say(&format!(
        "Setting up PostgreSQL, a server machine and {} worker machines on a network of their own.",
        arguments.workers
    ));
    let mut farm = Farm::create(FarmConfig {
        workers: usize::from(arguments.workers),
        slots: u32::from(arguments.slots),
        durable: true,
        hauberk,
        guix: None,
    })?;
    let repository = Repository::create(&farm.directory().join("repository"))?;
    repository.copy_from(&arguments.expressions)?;
    let revision = repository.commit("Begin")?;

    let port = if arguments.port == 0 { free_port()? } else { arguments.port };
    farm.start_web(port)
        .with_context(|| format!("serving the web page on port {port} (--port takes another)"))?;
    let page = format!("http://127.0.0.1:{port}/");
    progress.say(&format!("Logs are in {}, the web page is {page}", farm.directory().display()));
    farm.start_server()?;
    for index in 0..farm.workers.len() {
        farm.start_worker(index)?;
        farm.wait_until_joined(index).await?;
        progress.say(&format!("{} has found the server by mDNS and joined.", farm.workers[index].name()));
    }
    let specification = Specification::new("demonstration", &repository.url());
    farm.start_register(std::slice::from_ref(&specification))?;
    progress.say(&format!("The register watches {} at {}.", repository.url(), &revision[..12]));

    let interrupted = tokio::signal::ctrl_c();
    let builds = tokio::select! {
        builds = follow(&mut farm, &progress) => builds?,
        signal = interrupted => {
            signal?;
            progress.finish();
            progress.say("Interrupted.");
            farm.stop_all()?;
            return Ok(false);
        }
    };
    progress.finish();
    println!("\n{}", table::render(&builds));

    progress.say("Now a user's machine with an empty store asks the stock nix client for the image.");
    let substitution = Substitution::run(&mut farm).await?;
    substitution.print();
    let mut expectations = Expectations::default();
    expectations.check_farm(&farm, &builds).await?;
    expectations.check_substitution(&substitution);
    expectations.check_api(&page, &builds).await?;

    if std::io::stdout().is_terminal() && !arguments.once {
        println!();
        expectations.print();
        println!("\nThe farm goes on; look at {page} and end it with Ctrl-C.");
        tokio::signal::ctrl_c().await?;
        println!();
    }
    expectations.check_end(farm.stop_all());
    expectations.print();
    Ok(expectations.hold())
}

/// Shows what happens until every build is finished, and gives the builds.
async fn follow(farm: &mut Farm, progress: &Progress) -> Result<Vec<Build>> {
    let (listener, mut connection) =
        tokio_postgres::connect(&farm.postgres.connection_string(), NoTls).await?;
    let (wake, mut woken) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let mut messages = futures::stream::poll_fn(|context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if matches!(message, AsyncMessage::Notification(_)) {
                // One waiting wake-up is enough: the snapshot comes after it.
                let _ = wake.try_send(());
            }
        }
    });
    listener.batch_execute("listen hauberk_changed; listen hauberk_ready").await?;
    let deadline = Deadline::after(PATIENCE);
    let mut known = Vec::new();
    loop {
        farm.check_processes()?;
        let builds = Build::all(farm).await?;
        progress.show(&known, &builds);
        let evaluated = farm
            .query(
                "select coalesce(bool_and(status >= 0), false), coalesce(max(message), '') from evaluations",
                &[],
            )
            .await?;
        let over = evaluated[0].get::<_, bool>(0);
        if over && builds.is_empty() {
            anyhow::bail!("the evaluation gave no builds: {}", evaluated[0].get::<_, String>(1));
        }
        if over && builds.iter().all(|build| build.status >= 0) {
            return Ok(builds);
        }
        if deadline.is_over() {
            anyhow::bail!(
                "not finished within {PATIENCE:?}\n{}{}",
                farm.describe_builds().await,
                farm.log_tails()
            );
        }
        known = builds;
        let _ = tokio::time::timeout(SWEEP, woken.recv()).await;
    }
}
