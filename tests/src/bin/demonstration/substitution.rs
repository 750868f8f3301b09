//! The proof: the stock nix client takes the farm's result into an empty store, and believes only the farm's key.

use anyhow::Result;
use hauberk_tests::{Farm, Machine};

/// The build whose output is fetched.
pub(crate) const IMAGE: &str = "image-1.0";

/// What came of fetching the image.
#[derive(Debug)]
pub(crate) struct Substitution {
    /// The image's path.
    pub(crate) path: String,
    /// What the client said when it trusted the farm's key, and whether it succeeded.
    pub(crate) right_key: Attempt,
    /// The same when it trusted another key of the same name.
    pub(crate) wrong_key: Attempt,
    /// How many paths the right store has got.
    pub(crate) paths: usize,
    /// Whether nix-store --verify found all of them to have the hashes they should have.
    pub(crate) verified: bool,
    /// What a program of the image printed.
    pub(crate) program: String,
}

/// One call of the client.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) succeeded: bool,
    pub(crate) text: String,
}

impl Substitution {
    /// Fetches the image on two machines with empty stores.
    pub(crate) async fn run(farm: &mut Farm) -> Result<Self> {
        let path = farm.output_of(IMAGE).await?;
        let key = farm.server_signing_key().to_owned();
        let stranger = another_key(farm, &key)?;
        let wrong = farm.user_machine("stranger", &stranger)?;
        let wrong_key = realise(&wrong, &path)?;
        drop(wrong);
        let user = farm.user_machine("user", &key)?;
        let right_key = realise(&user, &path)?;
        let paths = user.command("nix-store").args(["--query", "--requisites", &path]).output()?;
        let verify = user.command("nix-store").args(["--verify", "--check-contents"]).output()?;
        let program = user
            .command("sh")
            .args(["-c", &format!("{path}/bin/mill 1 40 | {path}/bin/concord")])
            .output()?;
        Ok(Self {
            path,
            right_key,
            wrong_key,
            paths: String::from_utf8_lossy(&paths.stdout).lines().count(),
            verified: verify.status.success(),
            program: String::from_utf8_lossy(&program.stdout).trim().to_owned(),
        })
    }

    /// Shows it.
    pub(crate) fn print(&self) {
        for (who, attempt) in
            [("with the farm's key", &self.right_key), ("with another key", &self.wrong_key)]
        {
            println!("\n  $ nix-store --realise {}     # {who}", self.path);
            // What it announces, then how it ends: the path, or why it is refused.
            let (announced, rest) = attempt.text.split_at(attempt.text.find('\n').map_or(0, |end| end + 1));
            println!("  {}", announced.trim_end());
            let ends: Vec<&str> = rest
                .lines()
                .filter(
                    |line| if attempt.succeeded { *line == self.path } else { line.contains("not signed") },
                )
                .collect();
            println!("  ... {} lines", rest.lines().count() - ends.len());
            for line in ends.iter().take(1) {
                println!("  {line}");
            }
            if !attempt.succeeded {
                println!("  {}", rest.lines().last().unwrap_or_default());
            }
        }
        println!();
    }
}

fn realise(machine: &Machine, path: &str) -> Result<Attempt> {
    let output = machine.command("nix-store").args(["--realise", path]).output()?;
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    Ok(Attempt { succeeded: output.status.success(), text })
}

/// Makes a key of the same name that is not the farm's.
fn another_key(farm: &Farm, key: &str) -> Result<String> {
    let name = key.split(':').next().unwrap_or_default();
    let file = farm.key_file("stranger.signing");
    farm.hauberk().args(["key", "signing", name]).arg(&file).run()?;
    Ok(std::fs::read_to_string(file.with_extension("signing.pub"))?.trim().to_owned())
}
