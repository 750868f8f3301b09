//! A terminal with a person before it.

use std::{
    fs::File,
    io::{Read, Write},
    process::{Child, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use anyhow::{Context, Result};
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};

use crate::{
    launch::Launch,
    spawn::spawn,
    wait::{Deadline, wait_for},
};

/// A program on a terminal of its own, which keeps all that is written on it. Both end with the value.
#[derive(Debug)]
pub struct Terminal {
    controller: File,
    child: Child,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a program on a terminal of so many rows and columns.
    ///
    /// # Errors
    /// There is no terminal, or the program cannot be started.
    pub fn start(program: &Launch, rows: u16, columns: u16) -> Result<Self> {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&controller)?;
        unlockpt(&controller)?;
        let name = ptsname(&controller, Vec::new())?.into_string().context("the terminal's name")?;
        resize(&controller, rows, columns)?;
        let open = || File::options().read(true).write(true).open(&name);
        let mut command = program.clone().env("TERM", "xterm").on_its_terminal().command();
        command.stdin(Stdio::from(open()?)).stdout(Stdio::from(open()?)).stderr(Stdio::from(open()?));
        let child = spawn(command).with_context(|| format!("starting {program}"))?;
        let controller = File::from(controller);
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, keep) = (controller.try_clone()?, Arc::clone(&written));
        thread::spawn(move || {
            let mut piece = [0; 4096];
            // It fails when the last program has closed the terminal.
            while let Ok(count @ 1..) = reader.read(&mut piece) {
                keep.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&piece[..count]);
            }
        });
        Ok(Self { controller, child, written })
    }

    /// Presses keys.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        self.controller.write_all(keys.as_bytes()).context("pressing keys")
    }

    /// Gives the terminal another size.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        resize(&self.controller, rows, columns)
    }

    /// Tells whether what is typed is shown, as before a shell.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn echoes(&self) -> Result<bool> {
        Ok(tcgetattr(&self.controller)?.local_modes.contains(LocalModes::ECHO | LocalModes::ICANON))
    }

    /// Gives all that was written on it.
    pub fn text(&self) -> String {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&written).into_owned()
    }

    /// Gives the lines of the last whole picture that was drawn from the upper left corner, without what steers the terminal.
    pub fn picture(&self) -> Vec<String> {
        let text = self.text();
        let mut pictures = text.split("\x1b[H").skip(1).collect::<Vec<_>>();
        // The last one may not be whole, unless it ends as pictures do.
        if let Some(last) = pictures.last()
            && !last.contains("\x1b[J")
            && pictures.len() > 1
        {
            pictures.pop();
        }
        let picture = pictures.last().copied().unwrap_or_default();
        picture
            .split("\x1b[J")
            .next()
            .unwrap_or_default()
            .lines()
            .map(|line| line.replace("\x1b[K", "").trim_end_matches('\r').to_owned())
            .collect()
    }

    /// Waits until a picture is as it should be, and gives it.
    ///
    /// # Errors
    /// None is in time; the message has what was written.
    pub fn wait_for_picture(&self, what: &str, is_it: impl Fn(&[String]) -> bool) -> Result<Vec<String>> {
        wait_for(what, Deadline::seconds(60), || Ok(Some(self.picture()).filter(|picture| is_it(picture))))
            .with_context(|| format!("{:?}", self.text()))
    }

    /// Waits until something was written on it.
    ///
    /// # Errors
    /// It is not in time; the message has what was written.
    pub fn wait_for_text(&self, text: &str) -> Result<()> {
        wait_for(&format!("{text:?} is written"), Deadline::seconds(60), || {
            Ok(self.text().contains(text).then_some(()))
        })
        .with_context(|| format!("{:?}", self.text()))
    }

    /// Waits until the program ends.
    ///
    /// # Errors
    /// It does not in time.
    pub fn wait_end(&mut self) -> Result<ExitStatus> {
        wait_for("the program ends", Deadline::seconds(60), || Ok(self.child.try_wait()?))
            .with_context(|| format!("{:?}", self.text()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(terminal: &impl std::os::fd::AsFd, rows: u16, columns: u16) -> Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).context("giving the terminal a size")
}
