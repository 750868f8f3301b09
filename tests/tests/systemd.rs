//! The units for systemd are right, and the program takes what they give it.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, Result};
use hauberk_tests::{LabDirectory, Launch, hauberk_program};

/// The commands that have a unit each, `hauberk-COMMAND.service`.
const COMMANDS: [&str; 5] = ["register", "remote-server", "remote-worker", "web", "gc"];
/// Where the units expect the program.
const INSTALLED: &str = "/usr/local/bin/hauberk";

fn units() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../systemd")
}

fn unit(command: &str) -> Result<String> {
    let path = units().join(format!("hauberk-{command}.service"));
    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

/// Gives the values of a setting, in order.
fn values<'a>(unit: &'a str, setting: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(setting)?.strip_prefix('=')).collect()
}

#[test]
fn systemd_finds_nothing_wrong() -> Result<()> {
    let directory = LabDirectory::create()?;
    let program = hauberk_program()?;
    let mut verify = Launch::here("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        // The colon adds the directories where units are looked up ordinarily.
        .env("SYSTEMD_UNIT_PATH", format!("{}:", directory.path().display()));
    for command in COMMANDS {
        let path = directory.path().join(format!("hauberk-{command}.service"));
        let text = unit(command)?;
        assert!(text.contains(INSTALLED), "the unit of {command} runs another program");
        // Only the program is not where it will be.
        fs::write(&path, text.replace(INSTALLED, &program.display().to_string()))?;
        verify = verify.arg(&path);
    }
    let timer = directory.path().join("hauberk-gc.timer");
    // The drop-in changes what the worker's unit starts.
    let drop_in = directory.subdirectory("hauberk-remote-worker.service.d")?.join("keys.conf");
    let text = fs::read_to_string(units().join("hauberk-remote-worker-keys.conf"))?;
    assert!(text.contains(INSTALLED), "the drop-in runs another program");
    fs::write(&drop_in, text.replace(INSTALLED, &program.display().to_string()))?;
    fs::copy(units().join("hauberk-gc.timer"), &timer)?;
    let socket = directory.path().join("hauberk-remote-server.socket");
    fs::copy(units().join("hauberk-remote-server.socket"), &socket)?;
    verify = verify.arg(&timer).arg(&socket);
    let output = verify.output()?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.is_empty(), "{verify}: {}\n{said}", output.status);
    Ok(())
}

#[test]
fn the_program_takes_every_option_of_the_units() -> Result<()> {
    for command in COMMANDS {
        let text = unit(command)?;
        let start = values(&text, "ExecStart");
        let [start] = start.as_slice() else { panic!("{command} is started by {start:?}") };
        let mut words = start.split_whitespace();
        assert_eq!((words.next(), words.next()), (Some(INSTALLED), Some(command)));
        let help = Launch::here(hauberk_program()?).args([command, "--help"]).run()?;
        let listed: Vec<&str> = help.split_whitespace().map(|word| word.trim_end_matches(',')).collect();
        let (mut options, mut variables) = (0, Vec::new());
        for word in words {
            if word.starts_with("--") {
                options += 1;
                assert!(listed.contains(&word), "`hauberk {command} --help` does not list {word}:\n{help}");
            } else if let Some(variable) = word.strip_prefix('$') {
                variables.push(variable);
            }
        }
        assert!(options > 0, "{start}");
        // Each place for more options is empty unless the file of variables fills it.
        for variable in variables {
            assert!(
                values(&text, "Environment").contains(&format!("{variable}=").as_str()),
                "the unit of {command} does not say what ${variable} is by default"
            );
        }
        if command == "gc" {
            assert_eq!(values(&text, "Type"), ["oneshot"]);
            continue;
        }
        assert_eq!(values(&text, "Type"), ["notify"]);
        assert_eq!(values(&text, "RestartPreventExitStatus"), ["2 3"], "those that no restart mends");
    }
    Ok(())
}

#[test]
fn the_users_of_the_units_are_made_and_may_use_the_daemon() -> Result<()> {
    let directory = LabDirectory::create()?;
    let etc = directory.subdirectory("etc")?;
    for file in ["passwd", "group"] {
        fs::write(etc.join(file), "")?;
    }
    let configuration = directory.subdirectory("etc/sysusers.d")?.join("hauberk.conf");
    fs::copy(units().join("hauberk.sysusers.conf"), &configuration)?;
    Launch::here("systemd-sysusers")
        .arg(format!("--root={}", directory.path().display()))
        .arg("hauberk.conf")
        .run()?;
    let table = |file: &str| -> Result<BTreeMap<String, String>> {
        let text = fs::read_to_string(etc.join(file))?;
        Ok(text
            .lines()
            .filter_map(|line| line.split_once(':').map(|(name, rest)| (name.to_owned(), rest.to_owned())))
            .collect())
    };
    let (users, groups) = (table("passwd")?, table("group")?);
    let members = groups.get("nix-users").context("there is no group nix-users")?;
    for command in COMMANDS {
        let text = unit(command)?;
        for user in values(&text, "User") {
            assert!(users.contains_key(user), "nobody makes the user {user} of {command}");
            assert!(
                members.rsplit(':').next().is_some_and(|list| list.split(',').any(|member| member == user)),
                "{user} is not of the group nix-users: {members}"
            );
        }
        for group in values(&text, "Group") {
            assert!(groups.contains_key(group), "nobody makes the group {group} of {command}");
        }
    }
    Ok(())
}
