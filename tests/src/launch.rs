//! What to run, where and as whom.

use std::{
    ffi::{OsStr, OsString},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{clock::Clock, directory::LabDirectory, process::Process, spawn::spawn, wait::Deadline};

/// The namespaces a program is to run in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Those of this process.
    Here,
    /// Network, mounts and processes of the process with this id.
    Inside(u32),
    /// Only the network of the process with this id.
    Network(u32),
}

/// A program to start, with an environment that has nothing but what is said here.
#[derive(Clone, Debug)]
pub struct Launch {
    place: Place,
    user: Option<u32>,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    /// Variables that only the program itself gets, and not the wrappers that start it.
    own_environment: Vec<(OsString, OsString)>,
    directory: PathBuf,
}

impl Launch {
    /// Runs `program` on the computer itself.
    pub fn here(program: impl Into<PathBuf>) -> Self {
        Self::at(Place::Here, program)
    }

    pub(crate) fn at(place: Place, program: impl Into<PathBuf>) -> Self {
        let mut search = std::env::var_os("PATH").unwrap_or_default();
        // The tools of an administrator are not on everybody's path.
        search.push(":/usr/local/sbin:/usr/sbin:/sbin");
        Self {
            place,
            user: None,
            program: program.into(),
            arguments: Vec::new(),
            environment: vec![("PATH".into(), search), ("LC_ALL".into(), "C.UTF-8".into())],
            own_environment: Vec::new(),
            directory: PathBuf::from("/"),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, arguments: I) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Lets the program, and what it starts, go by a clock that can be moved.
    #[must_use]
    pub fn clock(mut self, clock: &Clock) -> Self {
        self.own_environment.extend(clock.environment());
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = directory.into();
        self
    }

    /// Runs as this user and group instead of root.
    #[must_use]
    pub fn user(mut self, id: u32) -> Self {
        self.user = Some(id);
        self
    }

    /// Gives the program and its arguments, without what is around them.
    pub fn words(&self) -> Vec<String> {
        let words =
            std::iter::once(self.program.as_os_str()).chain(self.arguments.iter().map(OsString::as_os_str));
        words.map(|word| word.to_string_lossy().into_owned()).collect()
    }

    /// Runs it in a session of its own, whose terminal is the standard input.
    #[must_use]
    pub(crate) fn on_its_terminal(mut self) -> Self {
        let program = std::mem::replace(&mut self.program, PathBuf::from("setsid"));
        let wrapper = [OsString::from("--ctty"), OsString::from("--wait"), program.into()];
        self.arguments.splice(0..0, wrapper);
        self
    }

    /// Tells whether the process started is a wrapper whose only child is the program.
    pub(crate) fn is_wrapped(&self) -> bool {
        matches!(self.place, Place::Inside(_))
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        match self.place {
            Place::Here => {}
            Place::Inside(process) => {
                command.args(["nsenter", "--mount", "--pid", "--net", "--target"]).arg(process.to_string());
                let mut directory = OsString::from("--wd=");
                directory.push(&self.directory);
                command.arg(directory).args(["setpriv", "--pdeathsig", "KILL"]);
            }
            Place::Network(process) => {
                command.args(["nsenter", "--net", "--target"]).arg(process.to_string());
                command.args(["setpriv", "--pdeathsig", "KILL"]);
            }
        }
        if let Some(user) = self.user {
            command.arg(format!("--reuid={user}")).arg(format!("--regid={user}")).arg("--clear-groups");
        }
        if !self.own_environment.is_empty() {
            command.arg("env");
            for (name, value) in &self.own_environment {
                let mut setting = name.clone();
                setting.push("=");
                setting.push(value);
                command.arg(setting);
            }
        }
        command.arg(&self.program).args(&self.arguments);
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        if self.place == Place::Here {
            command.current_dir(&self.directory);
        }
        // In a group of its own, so that Ctrl-C on the terminal reaches the laboratory only, which ends it all in order.
        command.stdin(Stdio::null()).process_group(0);
        command
    }

    /// Runs to the end and gives what came, whatever the exit status.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn output(&self) -> Result<Output> {
        let mut command = self.command();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        spawn(command)
            .and_then(std::process::Child::wait_with_output)
            .with_context(|| format!("running {}", self.program.display()))
    }

    /// Runs to the end, which must come in time, and gives what came, whatever the exit status.
    ///
    /// # Errors
    /// The program cannot be started, or goes on; it is killed then.
    pub fn output_within(&self, deadline: Deadline) -> Result<Output> {
        let directory = LabDirectory::create()?;
        let mut process = self.start("program", directory.path())?;
        let status = process.wait_end(deadline).with_context(|| format!("running {self}"))?;
        Ok(Output { status, stdout: process.log_text().into_bytes(), stderr: Vec::new() })
    }

    /// Runs to the end and gives the standard output.
    ///
    /// # Errors
    /// The program cannot be started or fails; the message holds what it said.
    pub fn run(&self) -> Result<String> {
        let output = self.output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!("{self}: {}\n{}{text}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(text)
    }

    /// Starts it as a guarded process, whose log goes to `NAME.log` in `directory`.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(&self, name: &str, directory: &Path) -> Result<Process> {
        Process::start(self.clone(), name, directory)
    }
}

impl std::fmt::Display for Launch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.program.display())?;
        for argument in &self.arguments {
            write!(formatter, " {}", argument.to_string_lossy())?;
        }
        Ok(())
    }
}
