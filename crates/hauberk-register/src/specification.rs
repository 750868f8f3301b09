//! Specification files: what to watch and build, in TOML.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hauberk_database::Level;
use serde::{Deserialize, Serialize};

/// Largest specification file that is read.
const MAX_FILE: u64 = 16 * 1024 * 1024;
/// Longest regular expression, in bytes.
const MAX_JOB_PATTERN: usize = 1000;
const DEFAULT_TIMEOUT: u32 = 36_000;
const DEFAULT_MAX_SILENT: u32 = 3_600;
const DEFAULT_EVALUATION_TIMEOUT: u32 = 3_600;
/// A year: more is a slip of the pen, and would not fit where seconds are kept.
const MAX_SECONDS: u32 = 366 * 24 * 3600;

/// A specification: what to watch and build.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Specification {
    /// Its name, unique in the farm.
    pub name: Name,
    /// How urgent its builds are: 0, the most urgent, to 9, which is the default.
    #[serde(default)]
    pub priority: Level,
    /// Its part of the farm against that of others as urgent: with 100 and 300, one gets a quarter of the slots' time while both want
    /// more than there is. 1 to 10000, 100 if not given.
    #[serde(default, skip_serializing_if = "Shares::is_ordinary")]
    pub shares: Shares,
    /// Seconds between two looks at its repositories; without it the register's own interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Seconds>,
    /// Whether it is watched.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Its repositories.
    #[serde(rename = "input")]
    pub inputs: Vec<Input>,
    /// What makes jobs of them.
    pub evaluator: Evaluator,
    /// Seconds a build may take where neither it nor its job says so; 0 = no limit.
    #[serde(default = "default_timeout")]
    pub timeout: Limit,
    /// Seconds a build may be silent where neither it nor its job says so; 0 = no limit.
    #[serde(default = "default_max_silent")]
    pub max_silent: Limit,
    /// The files of outputs that are offered for download.
    #[serde(default, rename = "build-output", skip_serializing_if = "Vec::is_empty")]
    pub build_outputs: Vec<BuildOutput>,
    /// `hauberk gc` keeps the outputs of so many evaluations, the newest ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_evaluations: Option<NonZeroU16>,
    /// `hauberk gc` keeps the outputs of evaluations of the last days, so many. Where neither is given, all are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_days: Option<NonZeroU16>,
}

/// A git repository to watch.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Input {
    /// Its name in the specification.
    pub name: Name,
    /// Where it is.
    pub url: Url,
    /// The branch to follow.
    #[serde(default = "Branch::main")]
    pub branch: Branch,
}

/// Files of the outputs of jobs' builds that are offered for download.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BuildOutput {
    /// The jobs whose builds they are of: a regular expression that is found somewhere in a job's name.
    pub job: JobPattern,
    /// What people call them, as `image`.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The output that has them.
    #[serde(default = "Name::out")]
    pub output: Name,
    /// Their path in the output, in which `*` stands for any characters of a name and `?` for one; all of the output if not given.
    #[serde(default = "FilePattern::whole", skip_serializing_if = "FilePattern::is_whole")]
    pub path: FilePattern,
}

/// What makes jobs of checkouts.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Evaluator {
    /// A Nix expression.
    Nix {
        /// The input that has it; the first if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input: Option<Name>,
        /// Its file in that input's tree.
        #[serde(default)]
        expression: Expression,
        /// Arguments for it, if it is a function.
        #[serde(default)]
        arguments: BTreeMap<String, serde_json::Value>,
        /// Systems it is called with, as its argument `system`; each job is then named with its system at the end. Without
        /// it, the expression is called once, and knows the systems itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        systems: Option<Vec<String>>,
        /// Seconds the evaluation may take.
        #[serde(default = "default_evaluation_timeout")]
        timeout: Seconds,
    },
}

/// A checked specification file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, rename = "specification")]
    specifications: Vec<Specification>,
}

/// Why a specification file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpecificationError {
    /// It cannot be read.
    #[error("cannot read the specification file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is not what it should be; the cause shows line and place.
    #[error("the specification file {} is not right", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and what is wrong there.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// Its parts do not fit together.
    #[error("the specification file {}: {what}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
}

/// Reads a specification file.
///
/// # Errors
/// [`SpecificationError`].
pub fn read(path: &Path) -> Result<Vec<Specification>, SpecificationError> {
    use std::io::Read;
    let unreadable = |source| SpecificationError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let count = file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
    if count as u64 > MAX_FILE {
        return Err(unreadable(std::io::ErrorKind::FileTooLarge.into()));
    }
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Vec<Specification>, SpecificationError> {
    let file: File = toml::from_str(text)
        .map_err(|source| SpecificationError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
    let content = |what| SpecificationError::Content { path: path.to_owned(), what };
    if file.specifications.is_empty() {
        return Err(content("there is no [[specification]] in it".to_owned()));
    }
    let mut names = BTreeSet::new();
    for specification in &file.specifications {
        if !names.insert(&specification.name) {
            return Err(content(format!("there are two specifications `{}`", specification.name)));
        }
        specification
            .check()
            .map_err(|what| content(format!("specification `{}`: {what}", specification.name)))?;
    }
    Ok(file.specifications)
}

impl Specification {
    fn check(&self) -> Result<(), String> {
        if self.inputs.is_empty() {
            return Err("it has no [[specification.input]]".to_owned());
        }
        let mut names = BTreeSet::new();
        for input in &self.inputs {
            if !names.insert(&input.name) {
                return Err(format!("there are two inputs `{}`", input.name));
            }
        }
        let Evaluator::Nix { input, systems, .. } = &self.evaluator;
        if let Some(input) = input
            && !names.contains(input)
        {
            return Err(format!("the evaluator's input `{input}` is not among its inputs"));
        }
        if systems.as_ref().is_some_and(Vec::is_empty) {
            return Err("the evaluator's list of systems is empty".to_owned());
        }
        Ok(())
    }
}

fn yes() -> bool {
    true
}

fn default_timeout() -> Limit {
    Limit(DEFAULT_TIMEOUT)
}

fn default_max_silent() -> Limit {
    Limit(DEFAULT_MAX_SILENT)
}

fn default_evaluation_timeout() -> Seconds {
    Seconds(DEFAULT_EVALUATION_TIMEOUT)
}

/// A text that is read once and trusted from there on.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Gives the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                let check: fn(&str) -> Result<(), &'static str> = $check;
                match check(&text) {
                    Ok(()) => Ok(Self(text)),
                    Err(what) => Err(format!("{text:?} {what}")),
                }
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(&self.0)
            }
        }
    };
}

checked_text! {
    /// The name of a specification or an input: letters, digits, `.`, `_`, `+` and `-`, up to 100 of them, the first neither `.`
    /// nor `-`. It is safe as the name of a file.
    Name, |text| {
        let good = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
        if text.is_empty() || text.len() > 100 || text.starts_with(['.', '-']) || !text.chars().all(good) {
            return Err("is not a name: letters, digits and `._+-`, beginning with neither `.` nor `-`");
        }
        Ok(())
    }
}

checked_text! {
    /// What people call build products: as [`Name`].
    Kind, |text| Name::try_from(text.to_owned()).map(|_| ()).map_err(|_| "is not a type: letters, digits and `._+-`, beginning with neither `.` nor `-`")
}

checked_text! {
    /// A regular expression for the names of jobs.
    JobPattern, |text| {
        if text.len() > MAX_JOB_PATTERN {
            return Err("is too long for a regular expression");
        }
        regex_lite::Regex::new(text).map(|_| ()).map_err(|_| "is not a regular expression")
    }
}

checked_text! {
    /// A path in an output, perhaps with wild cards.
    FilePattern, |text| {
        let parsed = text.parse::<hauberk_publish::products::Pattern>();
        parsed.map(|_| ()).map_err(|_| "is not a path inside an output, without `.` and `..`")
    }
}

checked_text! {
    /// Where a git repository is.
    Url, |text| {
        if text.is_empty() || text.starts_with('-') || text.chars().any(char::is_control) {
            return Err("is not the URL of a repository");
        }
        Ok(())
    }
}

checked_text! {
    /// The name of a branch.
    Branch, |text| {
        let bad = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
        if text.is_empty() || text.starts_with(['-', '/']) || text.ends_with(['/', '.']) || text.contains("..")
            || text.contains("//") || text.contains("@{") || text.ends_with(".lock") || text.chars().any(bad)
        {
            return Err("is not the name of a branch");
        }
        Ok(())
    }
}

checked_text! {
    /// A file in a tree: a relative path that does not leave it.
    Expression, |text| {
        let path = Path::new(text);
        let plain = |part| matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir);
        if text.is_empty() || text.contains('\0') || !path.components().all(plain) {
            return Err("is not a relative path inside the tree");
        }
        Ok(())
    }
}

impl Name {
    fn out() -> Self {
        Self("out".to_owned())
    }
}

impl FilePattern {
    fn whole() -> Self {
        Self(String::new())
    }

    fn is_whole(&self) -> bool {
        self.0.is_empty()
    }
}

impl Branch {
    fn main() -> Self {
        Self("main".to_owned())
    }
}

impl Default for Expression {
    fn default() -> Self {
        Self("release.nix".to_owned())
    }
}

/// A specification's part of the farm, against those of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Shares(u32);

impl Shares {
    const LARGEST: u32 = 10_000;

    fn is_ordinary(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Shares {
    fn default() -> Self {
        Self(100)
    }
}

impl TryFrom<u32> for Shares {
    type Error = String;

    fn try_from(shares: u32) -> Result<Self, String> {
        match shares {
            1..=Self::LARGEST => Ok(Self(shares)),
            _ => Err(format!("{shares} shares are not between 1 and {}", Self::LARGEST)),
        }
    }
}

impl From<Shares> for u32 {
    fn from(shares: Shares) -> Self {
        shares.0
    }
}

/// A time above zero, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Seconds(u32);

impl TryFrom<u32> for Seconds {
    type Error = String;

    fn try_from(seconds: u32) -> Result<Self, String> {
        match seconds {
            1..=MAX_SECONDS => Ok(Self(seconds)),
            _ => Err(format!("{seconds} s is not between 1 s and {MAX_SECONDS} s")),
        }
    }
}

impl From<Seconds> for u32 {
    fn from(seconds: Seconds) -> Self {
        seconds.0
    }
}

impl From<Seconds> for Duration {
    fn from(seconds: Seconds) -> Self {
        Self::from_secs(seconds.0.into())
    }
}

/// A limit in seconds; 0 = none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Limit(u32);

impl TryFrom<u32> for Limit {
    type Error = String;

    fn try_from(seconds: u32) -> Result<Self, String> {
        match seconds {
            0..=MAX_SECONDS => Ok(Self(seconds)),
            _ => Err(format!("{seconds} s is not between 0 (no limit) and {MAX_SECONDS} s")),
        }
    }
}

impl From<Limit> for u32 {
    fn from(limit: Limit) -> Self {
        limit.0
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    const WHOLE: &str = r#"
[[specification]]
name = "hello"
priority = 3
period = 60

[[specification.input]]
name = "source"
url = "https://example.org/hello.git"
branch = "release/1.0"

[specification.evaluator]
kind = "nix"
arguments = { debug = true }
"#;

    fn error(text: &str) -> String {
        let error = parse(Path::new("f.toml"), text).unwrap_err();
        match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        }
    }

    #[test]
    fn defaults_fill_what_is_left_out() {
        let all = parse(Path::new("f.toml"), WHOLE).unwrap();
        let [specification] = all.as_slice() else { panic!("one is in it") };
        assert!(specification.enabled);
        assert_eq!((specification.priority.get(), u32::from(specification.shares)), (3, 100));
        assert_eq!((u32::from(specification.timeout), u32::from(specification.max_silent)), (36_000, 3_600));
        let Evaluator::Nix { input, expression, arguments, systems, .. } = &specification.evaluator;
        assert_eq!((input, expression.as_str(), systems), (&None, "release.nix", &None));
        assert_eq!(arguments["debug"], true);
        // What is recorded in the database reads back as the same.
        let json = serde_json::to_value(specification).unwrap();
        assert_eq!(&serde_json::from_value::<Specification>(json).unwrap(), specification);
        let all = parse(Path::new("f.toml"), &WHOLE.replace("priority = 3", "shares = 300")).unwrap();
        assert_eq!(u32::from(all[0].shares), 300);
    }

    #[test]
    fn mistakes_are_shown_with_line_and_caret() {
        for (from, to, wanted) in [
            ("priority = 3", "prio = 3", "unknown field `prio`"),
            ("priority = 3", "priority = 10", "priority 10 is not between 0"),
            ("priority = 3", "shares = 0", "0 shares are not between 1"),
            ("period = 60", "period = 0", "0 s is not between 1 s"),
            ("url = \"https://example.org/hello.git\"", "", "missing field `url`"),
            ("branch = \"release/1.0\"", "branch = \"--upload-pack=x\"", "is not the name of a branch"),
            ("name = \"hello\"", "name = \"../x\"", "is not a name"),
            ("kind = \"nix\"", "kind = \"nix\"\nexpression = \"../x\"", "is not a relative path"),
            ("kind = \"nix\"", "kind = \"nix\"\nsystem = \"x\"", "unknown field `system`"),
            ("kind = \"nix\"", "kind = \"hydra\"", "unknown variant `hydra`"),
        ] {
            let text = WHOLE.replace(from, to);
            assert_ne!(text, WHOLE);
            let error = error(&text);
            assert!(error.contains(wanted) && error.contains('^') && error.contains("line"), "{error}");
        }
    }

    #[test]
    fn build_outputs_say_which_files_are_offered() {
        let text = format!(
            "{WHOLE}\n[[specification.build-output]]\njob = \"^image\"\ntype = \"iso\"\npath = \"iso/*.iso\"\n\n\
             [[specification.build-output]]\njob = \"doc\"\ntype = \"manual\"\noutput = \"doc\"\n"
        );
        let all = parse(Path::new("f.toml"), &text).unwrap();
        let outputs: Vec<_> = all[0]
            .build_outputs
            .iter()
            .map(|one| (one.job.as_str(), one.kind.as_str(), one.output.as_str(), one.path.as_str()))
            .collect();
        assert_eq!(outputs, [("^image", "iso", "out", "iso/*.iso"), ("doc", "manual", "doc", "")]);
        let json = serde_json::to_value(&all[0]).unwrap();
        assert_eq!(serde_json::from_value::<Specification>(json).unwrap(), all[0]);
        for (from, to, wanted) in [
            ("^image", "(", "is not a regular expression"),
            ("iso/*.iso", "../x", "is not a path inside an output"),
            ("iso/*.iso", "/etc/passwd", "is not a path inside an output"),
            ("\"iso\"", "\"a b\"", "is not a type"),
            ("job = \"doc\"\n", "", "missing field `job`"),
        ] {
            let error = error(&text.replace(from, to));
            assert!(error.contains(wanted) && error.contains('^'), "{error}");
        }
    }

    #[test]
    fn parts_that_do_not_fit_are_named() {
        for (text, wanted) in [
            (String::new(), "no [[specification]]"),
            (format!("{WHOLE}{WHOLE}"), "two specifications `hello`"),
            (WHOLE.replace("kind = \"nix\"", "kind = \"nix\"\ninput = \"other\""), "input `other`"),
            (WHOLE.replace("kind = \"nix\"", "kind = \"nix\"\nsystems = []"), "systems is empty"),
        ] {
            let error = error(&text);
            assert!(error.contains(wanted), "{error}");
        }
        assert!(matches!(read(Path::new("/nonexistent")), Err(SpecificationError::Read { .. })));
    }
}
