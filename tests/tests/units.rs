//! The service units.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use hauberk_tests::{LabDirectory, Launch, hauberk_program};

/// The program's path in the units, where an installation puts it.
const INSTALLED: &str = "/usr/local/bin/hauberk";

#[test]
fn units_are_in_order_and_use_options_that_exist() -> Result<()> {
    let directory = LabDirectory::create()?;
    let program = hauberk_program()?;
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd");
    let mut checked = 0;
    for entry in fs::read_dir(&units).context("reading systemd/")? {
        let unit = entry?.path();
        if unit.extension().is_none_or(|extension| extension != "service") {
            continue;
        }
        let text = fs::read_to_string(&unit)?;
        let copy = directory.path().join(unit.file_name().context("a unit has a name")?);
        fs::write(&copy, text.replace(INSTALLED, &program.display().to_string()))?;
        let verdict = Launch::here("systemd-analyze").args(["--man=no", "verify"]).arg(&copy).output()?;
        let remarks = String::from_utf8_lossy(&verdict.stderr).into_owned();
        assert!(verdict.status.success() && remarks.trim().is_empty(), "{}: {remarks}", unit.display());

        let start = text
            .lines()
            .find_map(|line| line.strip_prefix("ExecStart="))
            .with_context(|| format!("{} starts nothing", unit.display()))?;
        let mut words = start.split_whitespace();
        assert_eq!(words.next(), Some(INSTALLED), "{}", unit.display());
        let command = words.next().with_context(|| format!("{} names no command", unit.display()))?;
        let help = Launch::here(&program).args([command, "--help"]).run()?;
        for option in words.filter(|word| word.starts_with("--")) {
            assert!(
                help.contains(option),
                "hauberk {command} has no {option}, which {} uses",
                unit.display()
            );
        }
        checked += 1;
    }
    assert!(checked >= 4, "only {checked} units were found");
    Ok(())
}
