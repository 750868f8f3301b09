//! Git repositories: mirrors of branches, and trees of commits.
//!
//! The `git` program does it. It asks nobody for a password, reads no configuration but ours, and what it is given
//! can be taken neither for an option nor for a helper program.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::child::{self, ChildError, Finished, Limits};
use crate::specification::{Branch, Url};

const LIMITS: Limits = Limits { time: Duration::from_secs(1800), output: 1024 * 1024, log: 0 };
const PROTOCOLS: &str = "file:git:http:https:ssh";
/// The name of every tree, so that a store path made of it says nothing about the commit.
const TREE: &str = "source";

/// Why a repository could not be had.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// `git` did not come to its end.
    #[error("cannot {operation} {url}")]
    Child {
        /// What was tried.
        operation: &'static str,
        /// The repository.
        url: Url,
        /// Why.
        #[source]
        source: ChildError,
    },
    /// `git` refused.
    #[error("cannot {operation} {url}: {message}")]
    Refused {
        /// What was tried.
        operation: &'static str,
        /// The repository.
        url: Url,
        /// What it said.
        message: String,
    },
    /// The repository has no such branch.
    #[error("{url} has no branch `{branch}`")]
    NoBranch {
        /// The repository.
        url: Url,
        /// The branch.
        branch: Branch,
    },
    /// A folder or file of the register could not be made or moved.
    #[error("cannot prepare {}", path.display())]
    File {
        /// It.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl GitError {
    /// Tells whether it is because the register ends.
    pub(crate) fn is_stop(&self) -> bool {
        matches!(self, Self::Child { source: ChildError::Stopped { .. }, .. })
    }
}

/// Where mirrors and trees are kept.
#[derive(Debug, Clone)]
pub(crate) struct Git {
    state: PathBuf,
}

impl Git {
    /// Takes a folder, which has to be there, and writes the configuration that `git` is to read into it.
    pub(crate) async fn prepare(state: &Path) -> Result<Self, GitError> {
        let path = state.join("gitconfig");
        // Repositories of other users are read as well: the specification names them.
        let text = "[safe]\n\tdirectory = *\n[gc]\n\tautoDetach = false\n[init]\n\tdefaultBranch = main\n";
        tokio::fs::write(&path, text).await.map_err(|source| GitError::File { path, source })?;
        Ok(Self { state: state.to_owned() })
    }

    /// Fetches a branch and gives the commit it has now.
    pub(crate) async fn fetch(
        &self,
        mirror: &Path,
        url: &Url,
        branch: &Branch,
        stop: &CancellationToken,
    ) -> Result<String, GitError> {
        let mirror = self.state.join(mirror);
        if !mirror.join("HEAD").exists() {
            make_directory(&mirror).await?;
            let mut init = self.git(&mirror);
            init.args(["init", "--quiet", "--bare"]);
            self.run("make a mirror of", url, init, stop).await?;
        }
        let mut fetch = self.git(&mirror);
        fetch.args(["fetch", "--quiet", "--force", "--no-tags", "--no-write-fetch-head", "--"]);
        fetch.arg(url.as_str()).arg(format!("+refs/heads/{branch}:refs/heads/{branch}"));
        let finished = self.child("fetch", url, fetch, stop).await?;
        if !finished.status.success() {
            if finished.errors.contains("couldn't find remote ref") {
                return Err(GitError::NoBranch { url: url.clone(), branch: branch.clone() });
            }
            return Err(refused("fetch", url, &finished));
        }
        let mut parse = self.git(&mirror);
        parse.args(["rev-parse", "--verify", "--quiet", "--end-of-options"]);
        parse.arg(format!("refs/heads/{branch}^{{commit}}"));
        let finished = self.run("read", url, parse, stop).await?;
        let revision = String::from_utf8_lossy(&finished.output).trim().to_owned();
        if revision.is_empty() || !revision.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(refused("read", url, &finished));
        }
        Ok(revision)
    }

    /// Gives the folder with the tree of a commit that the mirror has, and makes it if it is not there.
    pub(crate) async fn tree(
        &self,
        mirror: &Path,
        url: &Url,
        revision: &str,
        trees: &Path,
        stop: &CancellationToken,
    ) -> Result<PathBuf, GitError> {
        let (mirror, holder) = (self.state.join(mirror), self.state.join(trees).join(revision));
        let tree = holder.join(TREE);
        if tree.exists() {
            return Ok(tree);
        }
        let unfinished = holder.join("unfinished");
        if unfinished.exists() {
            remove_directory(&unfinished).await?;
        }
        make_directory(&unfinished).await?;
        let mut checkout = self.git(&mirror);
        checkout.arg("--work-tree").arg(&unfinished);
        checkout.args(["checkout", "--quiet", "--force", revision, "--", "."]);
        checkout.env("GIT_INDEX_FILE", holder.join("index"));
        self.run("check out", url, checkout, stop).await?;
        tokio::fs::rename(&unfinished, &tree)
            .await
            .map_err(|source| GitError::File { path: tree.clone(), source })?;
        // Only `checkout` needed it.
        let _ = tokio::fs::remove_file(holder.join("index")).await;
        Ok(tree)
    }

    fn git(&self, mirror: &Path) -> Command {
        let mut command = Command::new("git");
        command
            .arg("--git-dir")
            .arg(mirror)
            .current_dir(&self.state)
            .env_remove("GIT_DIR")
            .env_remove("GIT_WORK_TREE")
            .env_remove("GIT_INDEX_FILE")
            .env_remove("GIT_OBJECT_DIRECTORY")
            .env_remove("GIT_ALTERNATE_OBJECT_DIRECTORIES")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "true")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", self.state.join("gitconfig"))
            .env("GIT_ALLOW_PROTOCOL", PROTOCOLS)
            .env("GIT_LFS_SKIP_SMUDGE", "1")
            .env("LC_ALL", "C");
        if std::env::var_os("GIT_SSH_COMMAND").is_none() {
            command.env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes");
        }
        command
    }

    async fn child(
        &self,
        operation: &'static str,
        url: &Url,
        command: Command,
        stop: &CancellationToken,
    ) -> Result<Finished, GitError> {
        child::run(command, LIMITS, None, stop).await.map_err(|source| GitError::Child {
            operation,
            url: url.clone(),
            source,
        })
    }

    async fn run(
        &self,
        operation: &'static str,
        url: &Url,
        command: Command,
        stop: &CancellationToken,
    ) -> Result<Finished, GitError> {
        let finished = self.child(operation, url, command, stop).await?;
        if finished.status.success() { Ok(finished) } else { Err(refused(operation, url, &finished)) }
    }
}

/// Makes an error of what `git` said: its first complaint, on one line.
fn refused(operation: &'static str, url: &Url, finished: &Finished) -> GitError {
    let complaint = finished
        .errors
        .lines()
        .find_map(|line| line.strip_prefix("fatal: ").or_else(|| line.strip_prefix("error: ")))
        .or_else(|| finished.errors.lines().find(|line| !line.trim().is_empty()))
        .unwrap_or("git gave no reason");
    let message = format!("{} ({})", complaint.trim(), finished.ending());
    GitError::Refused { operation, url: url.clone(), message }
}

async fn make_directory(path: &Path) -> Result<(), GitError> {
    tokio::fs::create_dir_all(path).await.map_err(|source| GitError::File { path: path.to_owned(), source })
}

async fn remove_directory(path: &Path) -> Result<(), GitError> {
    tokio::fs::remove_dir_all(path).await.map_err(|source| GitError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::process::Command as Blocking;

    use super::*;

    fn git(directory: &Path, arguments: &[&str]) -> String {
        let output = Blocking::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "init.defaultBranch=main"])
            .args(arguments)
            .current_dir(directory)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[tokio::test]
    async fn branches_are_followed_and_trees_are_those_of_the_commit() {
        let directory = tempfile::tempdir().unwrap();
        let (repository, state) = (directory.path().join("repository"), directory.path().join("state"));
        for path in [&repository, &state] {
            std::fs::create_dir(path).unwrap();
        }
        git(&repository, &["init", "--quiet"]);
        std::fs::write(repository.join("file"), "one").unwrap();
        git(&repository, &["add", "."]);
        git(&repository, &["commit", "--quiet", "-m", "one"]);
        let first = git(&repository, &["rev-parse", "HEAD"]);

        let url = Url::try_from(format!("file://{}", repository.display())).unwrap();
        let branch = Branch::try_from("main".to_owned()).unwrap();
        let stop = CancellationToken::new();
        let mirrors = Git::prepare(&state).await.unwrap();
        let (mirror, trees) = (Path::new("mirror"), Path::new("trees"));
        assert_eq!(mirrors.fetch(mirror, &url, &branch, &stop).await.unwrap(), first);

        // History may be rewritten, and go back.
        std::fs::write(repository.join("file"), "two").unwrap();
        std::fs::write(repository.join("new"), "two").unwrap();
        git(&repository, &["add", "."]);
        git(&repository, &["commit", "--quiet", "--amend", "-m", "two"]);
        let second = mirrors.fetch(mirror, &url, &branch, &stop).await.unwrap();
        assert_ne!(first, second);
        for (revision, content, new) in [(&second, "two", true), (&first, "one", false)] {
            for _ in 0..2 {
                let tree = mirrors.tree(mirror, &url, revision, trees, &stop).await.unwrap();
                assert_eq!(std::fs::read_to_string(tree.join("file")).unwrap(), content);
                assert_eq!(tree.join("new").exists(), new);
                assert!(!tree.join(".git").exists());
                assert!(tree.ends_with("source"));
            }
        }

        let missing = Branch::try_from("missing".to_owned()).unwrap();
        let error = mirrors.fetch(mirror, &url, &missing, &stop).await.unwrap_err();
        assert!(matches!(error, GitError::NoBranch { .. }), "{error}");
        let nowhere = Url::try_from(format!("file://{}/none", repository.display())).unwrap();
        let error = mirrors.fetch(mirror, &nowhere, &branch, &stop).await.unwrap_err();
        assert!(error.to_string().contains("none"), "{error}");
        let helper = Url::try_from("ext::sh -c true".to_owned()).unwrap();
        let error = mirrors.fetch(mirror, &helper, &branch, &stop).await.unwrap_err();
        assert!(error.to_string().contains("transport 'ext' not allowed"), "{error}");
    }
}
