//! What must have come of it all.

use anyhow::Result;
use hauberk_tests::Farm;

use crate::{
    api,
    build::Build,
    substitution::{IMAGE, Substitution},
};

/// Builds that must not succeed, and how each ends.
const EXCEPTIONS: [(&str, &str); 5] = [
    ("parser-1.0", "failed"),
    ("calculator-1.0", "failed dependency (parser-1.0)"),
    ("calculator-manual-1.0", "failed dependency (parser-1.0)"),
    ("talker", "timed out"),
    ("sleeper", "silent too long"),
];
/// How many builds the graph has at least.
const BUILDS: usize = 15;

/// Expectations and whether each holds.
#[derive(Debug, Default)]
pub(crate) struct Expectations {
    checked: Vec<(String, bool)>,
    /// How many were printed already.
    printed: usize,
}

impl Expectations {
    fn add(&mut self, what: impl Into<String>, holds: bool) {
        self.checked.push((what.into(), holds));
    }

    /// Checks what the database has.
    pub(crate) async fn check_farm(&mut self, farm: &Farm, builds: &[Build]) -> Result<()> {
        self.add(format!("{} builds in the graph, at least {BUILDS}", builds.len()), builds.len() >= BUILDS);
        let rest: Vec<&Build> =
            builds.iter().filter(|build| EXCEPTIONS.iter().all(|(name, _)| *name != build.name)).collect();
        let unsuccessful: Vec<&str> =
            rest.iter().filter(|build| build.state != "succeeded").map(|build| build.name.as_str()).collect();
        self.add(
            if unsuccessful.is_empty() {
                format!("{} builds succeeded", rest.len())
            } else {
                format!(
                    "{} of {} builds did not succeed: {}",
                    unsuccessful.len(),
                    rest.len(),
                    unsuccessful.join(", ")
                )
            },
            unsuccessful.is_empty(),
        );
        for (name, result) in EXCEPTIONS {
            let found = builds.iter().find(|build| build.name == name).map(Build::result);
            self.add(
                format!("{name}: {}", found.as_deref().unwrap_or("absent")),
                found.as_deref() == Some(result),
            );
        }
        let repeated = builds.iter().filter(|build| build.attempts > 1).count();
        self.add(format!("{repeated} builds were tried more than once"), repeated == 0);
        for host in &farm.workers {
            let count = builds.iter().filter(|build| build.worker.as_deref() == Some(host.name())).count();
            self.add(format!("{} built {count}", host.name()), count > 0);
        }
        if farm.workers.len() > 1 {
            let crossed: i64 = farm
                .query(
                    "select count(*) from build_dependencies d join builds b on b.id = d.build_id \
                     join attempts a on a.id = b.attempt_id join builds i on i.id = d.dependency_id \
                     join attempts o on o.id = i.attempt_id where a.worker_id <> o.worker_id and b.state = 'succeeded'",
                    &[],
                )
                .await?[0]
                .get(0);
            self.add(format!("{crossed} inputs were built on one worker and used on another"), crossed > 0);
        }
        Ok(())
    }

    /// Checks what the stock client could do with it.
    pub(crate) fn check_substitution(&mut self, substitution: &Substitution) {
        self.add(
            format!("the stock nix client substituted {} paths into an empty store", substitution.paths),
            substitution.right_key.succeeded && substitution.paths > 10,
        );
        self.add("nix-store --verify finds their contents in order", substitution.verified);
        let words = substitution.program.lines().count();
        self.add(format!("programs of the image run there: they count {words} words"), words > 3);
        self.add(
            "with another key of the same name nothing was accepted",
            !substitution.wrong_key.succeeded
                && substitution.wrong_key.text.contains("not signed by any of the keys"),
        );
    }

    /// Checks that the web process knows it too.
    pub(crate) async fn check_api(&mut self, page: &str, builds: &[Build]) -> Result<()> {
        if let Some(image) = builds.iter().find(|build| build.name == IMAGE) {
            let path = format!("build/{}", image.id);
            let answer = api::json(&format!("{page}{path}")).await?;
            self.add(
                format!("GET /{path} says buildstatus {}", answer["buildstatus"]),
                answer["buildstatus"] == 0,
            );
        }
        let queue = api::json(&format!("{page}api/queue?nr=10")).await?;
        let left = queue.as_array().map(Vec::len);
        self.add(format!("GET /api/queue?nr=10 lists {} builds", left.unwrap_or_default()), left == Some(0));
        Ok(())
    }

    /// Checks how the processes ended.
    pub(crate) fn check_end(&mut self, end: Result<()>) {
        match end {
            Ok(()) => self.add("every process ended in order and left no child", true),
            Err(error) => self.add(format!("a process did not end in order: {error:#}"), false),
        }
    }

    /// Prints those that were not printed yet.
    pub(crate) fn print(&mut self) {
        for (what, holds) in &self.checked[self.printed..] {
            println!("{:6}  {what}", if *holds { "ok" } else { "FAILED" });
        }
        self.printed = self.checked.len();
    }

    /// Tells whether all of them hold.
    pub(crate) fn hold(&self) -> bool {
        self.checked.iter().all(|(_, holds)| *holds)
    }
}
