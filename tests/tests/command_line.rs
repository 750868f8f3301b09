//! The program's face: help, version, logs.

use anyhow::{Context, Result};
use hauberk_tests::{Launch, hauberk_program};

const COMMANDS: [&[&str]; 13] = [
    &[],
    &["register"],
    &["remote-server"],
    &["remote-worker"],
    &["web"],
    &["up"],
    &["key"],
    &["key", "curve"],
    &["key", "signing"],
    &["worker"],
    &["worker", "add"],
    &["database"],
    &["database", "migrate"],
];

#[test]
fn help_is_complete() -> Result<()> {
    for command in COMMANDS {
        let help = Launch::here(hauberk_program()?).args(command).arg("--help").run()?;
        assert!(help.contains("Usage:"), "{command:?}: {help}");
        assert!(!help.contains("placeholder"), "{command:?}: {help}");
        // Every option says what it does, on its line or the next.
        let lines: Vec<&str> = help.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            // Options, not the lists of their values.
            if !line.trim_start().starts_with('-')
                || !line.starts_with(' ')
                || line.trim_start().starts_with("- ")
            {
                continue;
            }
            let own = line.trim().split_once("  ").is_some();
            let next = lines
                .get(number + 1)
                .is_some_and(|next| next.len() > 8 && !next.trim_start().starts_with('-'));
            assert!(own || next, "{command:?} does not explain {line:?}");
        }
    }
    Ok(())
}

#[test]
fn the_version_names_a_commit() -> Result<()> {
    let version = Launch::here(hauberk_program()?).arg("--version").run()?;
    let words: Vec<&str> = version.split(|character: char| !character.is_ascii_alphanumeric()).collect();
    let named =
        words.iter().any(|word| word.len() >= 7 && word.chars().all(|digit| digit.is_ascii_hexdigit()));
    // A release tarball has no commit, and says so.
    assert!(named || version.contains("unknown"), "{version}");
    Ok(())
}

#[test]
fn logs_are_json_when_asked() -> Result<()> {
    let absent = "host=/nonexistent user=hauberk dbname=hauberk";
    let output = Launch::here(hauberk_program()?)
        .args(["--log-format", "json", "web", "--port", "0", "--database", absent])
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!text.trim().is_empty());
    for line in text.lines() {
        let value: serde_json::Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        assert!(value["level"].is_string() && value["timestamp"].is_string(), "{line}");
    }
    Ok(())
}
