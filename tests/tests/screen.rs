//! `hauberk status --watch` as somebody at a terminal has it, and what shells complete.

use std::fs;

use anyhow::{Context, Result};
use hauberk_tests::{Deadline, LabDirectory, Launch, Postgres, Terminal, hauberk_program, wait_for};
use serde_json::Value;

/// An empty farm: a database with the schema.
fn farm(directory: &LabDirectory) -> Result<Postgres> {
    let postgres = Postgres::create(&directory.path().join("postgres"), false)?;
    hauberk(&postgres, &["database", "migrate"])?.run()?;
    Ok(postgres)
}

fn hauberk(postgres: &Postgres, arguments: &[&str]) -> Result<Launch> {
    let database = postgres.connection_string();
    Ok(Launch::here(hauberk_program()?).args(arguments).args(["--database", &database]))
}

/// Changes what the status says, as the server does.
fn run_sql(postgres: &Postgres, statement: &str) -> Result<()> {
    Launch::here("psql").args([&postgres.connection_string(), "--quiet", "--command", statement]).run()?;
    Ok(())
}

/// Records more specifications than have room.
const SERVER: &str = "insert into specifications (name, definition) select 'specification-' || n, '{}' from generate_series(1, 30) n; \
     notify hauberk_changed";

fn shows(picture: &[String], text: &str) -> bool {
    picture.iter().any(|line| line.contains(text))
}

#[test]
fn the_status_stays_on_a_terminal() -> Result<()> {
    let directory = LabDirectory::create()?;
    let mut postgres = farm(&directory)?;
    let mut terminal = Terminal::start(&hauberk(&postgres, &["status", "--watch"])?, 24, 80)?;
    let first = terminal.wait_for_picture("the status", |picture| shows(picture, "slots: 0 of 0 busy"))?;
    assert!(shows(&first, "q ends"), "{first:?}");
    assert!(shows(&first, "no remote-server has used this database yet"), "{first:?}");
    // It has a page of its own, and what is typed does not show.
    assert!(terminal.text().starts_with("\x1b[?1049h"), "{:?}", terminal.text());
    assert!(!terminal.echoes()?);

    // It follows the farm.
    run_sql(&postgres, SERVER)?;
    let full = terminal.wait_for_picture("what is new", |picture| shows(picture, "specification-1 "))?;
    assert_eq!(full.len(), 24, "{full:?}");
    assert!(shows(&full, "more lines"), "{full:?}");
    // It fits whatever size the terminal gets.
    terminal.resize(12, 30)?;
    let small = terminal.wait_for_picture("a smaller picture", |picture| picture.len() == 12)?;
    assert!(small.iter().all(|line| line.chars().count() <= 30), "{small:?}");
    terminal.resize(60, 100)?;
    terminal.wait_for_picture("all of it", |picture| shows(picture, "specification-30"))?;
    assert!(!shows(&terminal.picture(), "more lines"));

    // It waits for a database that is away.
    postgres.kill9()?;
    terminal.wait_for_picture("what is wrong", |picture| shows(picture, "the database does not answer"))?;
    postgres.start()?;
    terminal.wait_for_picture("the status again", |picture| shows(picture, "specification-30"))?;

    // Other keys do nothing; q ends it, and the terminal is as it was.
    terminal.press("x\n")?;
    terminal.press("q")?;
    assert!(terminal.wait_end()?.success());
    assert!(terminal.text().ends_with("\x1b[?1049l"), "{:?}", terminal.text());
    assert!(terminal.echoes()?);
    Ok(())
}

#[test]
fn the_status_ends_by_ctrl_c_and_comes_back_after_ctrl_z() -> Result<()> {
    let directory = LabDirectory::create()?;
    let postgres = farm(&directory)?;
    let shell = directory.path().join("shell");
    let program = hauberk(&postgres, &["status", "--watch"])?;
    // A shell with job control, as a person has.
    fs::write(&shell, "PS1='ready> '\n")?;
    let bash = Launch::here("bash").args(["--noprofile", "--rcfile"]).arg(&shell).arg("-i");
    let mut terminal = Terminal::start(&bash, 24, 80)?;
    terminal.wait_for_text("ready> ")?;
    fs::write(directory.path().join("watch.sh"), format!("exec {}\n", quoted(&program)))?;
    let script = directory.path().join("watch.sh");
    terminal.press(&format!("bash {}\n", script.display()))?;
    terminal.wait_for_picture("the status", |picture| shows(picture, "slots: 0 of 0 busy"))?;
    terminal.press("\x1a")?;
    terminal.wait_for_text("Stopped")?;
    let stopped = terminal.text();
    let tail = stopped.rsplit("\x1b[?1049l").next().unwrap_or_default();
    assert!(tail.contains("Stopped"), "the page was not given back before: {stopped:?}");
    terminal.press("fg\n")?;
    let entered = |text: &str| text.matches("\x1b[?1049h").count();
    wait_for("it comes back", Deadline::seconds(60), || Ok((entered(&terminal.text()) == 2).then_some(())))?;
    terminal.wait_for_picture("the status", |picture| shows(picture, "slots: 0 of 0 busy"))?;
    terminal.press("\x03")?;
    wait_for("it ends, and the shell asks again", Deadline::seconds(60), || {
        let text = terminal.text();
        let left = text.matches("\x1b[?1049l").count() == 2;
        Ok((left && text.matches("ready> ").count() == 3).then_some(()))
    })?;
    terminal.press("echo it ended with $?\n")?;
    terminal.wait_for_text("it ended with 0")?;
    terminal.press("exit\n")?;
    terminal.wait_end()?;
    Ok(())
}

/// Spells a program for a shell.
fn quoted(program: &Launch) -> String {
    let words = program.words();
    words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_status_is_text_or_json_where_there_is_no_terminal() -> Result<()> {
    let directory = LabDirectory::create()?;
    let postgres = farm(&directory)?;
    let mut text = hauberk(&postgres, &["status", "--watch"])?.start("text", directory.path())?;
    let mut json = hauberk(&postgres, &["status", "--watch", "--json"])?.start("json", directory.path())?;
    let twice = |process: &hauberk_tests::Process, what: &str| {
        wait_for("it is told twice", Deadline::seconds(60), || {
            Ok((process.log_text().matches(what).count() >= 2).then_some(()))
        })
    };
    twice(&text, "slots: 0 of 0 busy")?;
    twice(&json, "\"slots\":0")?;
    assert!(!text.log_text().contains('\x1b'), "{:?}", text.log_text());
    for line in json.log_text().lines().take(2) {
        let status: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        assert_eq!(status["workers"]["enrolled"], 0);
    }
    for process in [&mut text, &mut json] {
        process.stop(Deadline::seconds(20))?;
    }
    // It ends when nobody reads any more.
    let piped = format!("{} | head -n 1", quoted(&hauberk(&postgres, &["status", "--watch"])?));
    let ended = Launch::here("bash").args(["-c", &piped]).output_within(Deadline::seconds(60))?;
    assert!(ended.status.success());
    Ok(())
}

/// Writes what a shell reads to a file, and gives its path.
fn completions(directory: &LabDirectory, shell: &str, name: &str) -> Result<String> {
    let script = Launch::here(hauberk_program()?).args(["completions", shell]).run()?;
    let path = directory.path().join(name);
    fs::write(&path, script)?;
    Ok(path.display().to_string())
}

#[test]
fn bash_completes_commands_and_options() -> Result<()> {
    let directory = LabDirectory::create()?;
    let file = completions(&directory, "bash", "hauberk.bash")?;
    let settings = directory.path().join("rc");
    fs::write(
        &settings,
        "PS1='ready> '\nbind 'set bell-style none'\nbind 'set enable-bracketed-paste off'\n",
    )?;
    let bash = Launch::here("bash").args(["--noprofile", "--rcfile"]).arg(&settings).arg("-i");
    let mut terminal = Terminal::start(&bash, 40, 200)?;
    terminal.wait_for_text("ready> ")?;
    terminal.press(&format!("source {file} && echo so'urced'\n"))?;
    terminal.wait_for_text("\nsourced")?;
    for (typed, completed) in [
        ("hauberk stat\t", "hauberk status "),
        ("hauberk build prio\t", "hauberk build priority "),
        ("hauberk status --wat\t", "hauberk status --watch "),
        ("hauberk worker tok\t", "hauberk worker token "),
        ("hauberk remote-worker --enr\t", "hauberk remote-worker --enrol"),
        ("hauberk completions fi\t", "hauberk completions fish "),
    ] {
        let before = terminal.text().len();
        terminal.press(typed)?;
        wait_for(&format!("{typed:?} is completed"), Deadline::seconds(60), || {
            Ok(terminal.text().get(before..).is_some_and(|new| new.contains(completed)).then_some(()))
        })
        .with_context(|| terminal.text())?;
        // Away with the line.
        terminal.press("\x15")?;
    }
    // What could follow is listed.
    terminal.press("hauberk evaluation \t\t")?;
    for word in ["list", "show", "cancel", "restart", "retry", "start", "priority", "emergency"] {
        terminal.wait_for_text(word)?;
    }
    Ok(())
}

#[test]
fn other_shells_read_what_is_written_for_them() -> Result<()> {
    let directory = LabDirectory::create()?;
    let is_there =
        |shell: &str| Launch::here("which").arg(shell).output().is_ok_and(|found| found.status.success());
    if is_there("fish") {
        let file = completions(&directory, "fish", "hauberk.fish")?;
        Launch::here("fish").args(["--no-execute", &file]).run()?;
        let ask = |line: &str| {
            let home = directory.path();
            let script = format!("source {file}; complete --do-complete '{line}'");
            Launch::here("fish").env("HOME", home).args(["--no-config", "--command", &script]).run()
        };
        assert!(ask("hauberk sta")?.starts_with("status\t"), "{}", ask("hauberk sta")?);
        assert!(ask("hauberk build wa")?.starts_with("wait\t"));
        assert!(ask("hauberk status --wa")?.starts_with("--watch\t"));
    } else {
        eprintln!("left out: fish is not here");
    }
    if is_there("zsh") {
        let file = completions(&directory, "zsh", "_hauberk")?;
        Launch::here("zsh").args(["--no-exec", &file]).run()?;
        // It is found on the path of functions, and its own function is made.
        let script = format!(
            "fpath=({} $fpath); autoload -Uz compinit; compinit -u -D; autoload +X _hauberk && print -r -- $_comps[hauberk]",
            directory.path().display()
        );
        let said =
            Launch::here("zsh").env("HOME", directory.path()).args(["--no-rcs", "-c", &script]).run()?;
        assert_eq!(said.trim(), "_hauberk");
    } else {
        eprintln!("left out: zsh is not here");
    }
    Ok(())
}
