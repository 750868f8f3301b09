//! Specification files.

use std::fmt::Write;

/// A specification that watches one repository and evaluates `release.nix` in it.
#[derive(Clone, Debug)]
pub struct Specification {
    /// Its name.
    pub name: String,
    /// The repository's URL.
    pub url: String,
    /// The branch.
    pub branch: String,
    /// 0 is the most urgent, 9 the least.
    pub priority: u8,
    /// Seconds a build may take, unless the job says otherwise.
    pub timeout: Option<u32>,
    /// Seconds a build may be silent, unless the job says otherwise.
    pub max_silent: Option<u32>,
    /// Evaluations whose outputs are kept.
    pub keep_evaluations: Option<u16>,
    /// Files offered for download: a regular expression for jobs, the type, the output and the path in it.
    pub build_outputs: Vec<[&'static str; 4]>,
}

impl Specification {
    /// Watches branch `main` of the repository at `url`.
    pub fn new(name: &str, url: &str) -> Self {
        Self {
            name: name.to_owned(),
            url: url.to_owned(),
            branch: "main".to_owned(),
            priority: 5,
            timeout: None,
            max_silent: None,
            keep_evaluations: None,
            build_outputs: Vec::new(),
        }
    }

    /// Gives its entry in a specification file.
    pub fn toml(&self) -> String {
        let Self { name, url, branch, priority, .. } = self;
        let mut text = format!("[[specification]]\nname = {name:?}\npriority = {priority}\n");
        if let Some(seconds) = self.timeout {
            let _ = writeln!(text, "timeout = {seconds}");
        }
        if let Some(seconds) = self.max_silent {
            let _ = writeln!(text, "max-silent = {seconds}");
        }
        if let Some(count) = self.keep_evaluations {
            let _ = writeln!(text, "keep-evaluations = {count}");
        }
        let _ = write!(
            text,
            "\n[[specification.input]]\nname = {name:?}\nurl = {url:?}\nbranch = {branch:?}\n\n\
             [specification.evaluator]\nkind = \"nix\"\nexpression = \"release.nix\"\n"
        );
        for [job, kind, output, path] in &self.build_outputs {
            let _ = write!(
                text,
                "\n[[specification.build-output]]\njob = {job:?}\ntype = {kind:?}\noutput = {output:?}\npath = {path:?}\n"
            );
        }
        text
    }
}
