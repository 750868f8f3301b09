//! A terminal's screen that is drawn again and again.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};

use nix::sys::signal::{Signal as Number, raise};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Takes another page of the terminal, without its cursor; and gives the old one back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// What a terminal has that does not tell its size.
const USUAL: (usize, usize) = (24, 80);

/// The screen of the terminal that is the standard output. What was there before comes back when it is dropped.
#[derive(Debug)]
pub(crate) struct Screen {
    /// None where keys cannot be read.
    keys: Option<Keys>,
    resized: Signal,
    suspended: Signal,
}

#[derive(Debug)]
struct Keys {
    terminal: File,
    before: Termios,
    /// Whether somebody wants no more; a thread of its own reads the keys, and ends with the program.
    quit: watch::Receiver<bool>,
}

/// What somebody at the terminal did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gesture {
    /// They want no more.
    Quit,
    /// The screen has another size, or was somebody else's meanwhile.
    Redraw,
}

impl Screen {
    /// Takes the screen; nothing where the standard output is none.
    ///
    /// # Errors
    /// The system does not let us listen to its signals, or the terminal does not take what is written.
    pub(crate) fn take() -> io::Result<Option<Self>> {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        if dumb || !io::stdout().is_terminal() {
            return Ok(None);
        }
        let screen = Self {
            keys: Keys::open().ok(),
            resized: signal(SignalKind::window_change())?,
            suspended: signal(SignalKind::from_raw(Number::SIGTSTP as i32))?,
        };
        screen.enter()?;
        Ok(Some(screen))
    }

    /// Draws what of `text` has room.
    pub(crate) fn draw(&self, text: &str) -> io::Result<()> {
        let size =
            tcgetwinsize(io::stdout()).map(|size| (usize::from(size.ws_row), usize::from(size.ws_col)));
        let (rows, columns) = size.ok().filter(|(rows, columns)| *rows > 0 && *columns > 0).unwrap_or(USUAL);
        show(&frame(text, rows, columns))
    }

    /// Waits until somebody does something.
    pub(crate) async fn gesture(&mut self) -> Gesture {
        let key = async {
            match &mut self.keys {
                // The thread that would tell is gone with the terminal.
                Some(keys) => drop(keys.quit.wait_for(|quit| *quit).await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = key => Gesture::Quit,
            _ = self.resized.recv() => Gesture::Redraw,
            _ = self.suspended.recv() => {
                self.leave();
                // It goes on here when the shell says so.
                let _ = raise(Number::SIGSTOP);
                match self.enter() {
                    Ok(()) => Gesture::Redraw,
                    Err(_) => Gesture::Quit,
                }
            }
        }
    }

    fn enter(&self) -> io::Result<()> {
        if let Some(keys) = &self.keys {
            let mut settings = keys.before.clone();
            // Keys come at once, and are not shown; Ctrl-C and Ctrl-Z stay signals.
            settings.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            tcsetattr(&keys.terminal, OptionalActions::Now, &settings)?;
        }
        show(ENTER)
    }

    fn leave(&self) {
        // Nothing can be done about a terminal that is gone.
        let _ = show(LEAVE);
        if let Some(keys) = &self.keys {
            let _ = tcsetattr(&keys.terminal, OptionalActions::Now, &keys.before);
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Keys {
    fn open() -> io::Result<Self> {
        let terminal = File::options().read(true).write(true).open("/dev/tty")?;
        let before = tcgetattr(&terminal)?;
        let reader = terminal.try_clone()?;
        let (tell, quit) = watch::channel(false);
        std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
            wait_for_quit(reader);
            // Nobody may listen any more.
            let _ = tell.send(true);
        })?;
        Ok(Self { terminal, before, quit })
    }
}

/// Waits for a `q`, or for the end of the terminal.
fn wait_for_quit(mut terminal: File) {
    let mut keys = [0; 64];
    loop {
        match terminal.read(&mut keys) {
            Ok(0) => return,
            Ok(count) if keys.iter().take(count).any(|key| matches!(key, b'q' | b'Q')) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn show(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// Gives what draws `text` on a screen of this size, over what is there, so that nothing flickers. Lines that are too long are cut, and
/// of lines that are too many the last ones are left out and counted.
fn frame(text: &str, rows: usize, columns: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let shown = if lines.len() > rows { rows - 1 } else { lines.len() };
    let more = (shown < lines.len()).then(|| format!("… {} more lines", lines.len() - shown));
    let mut frame = String::from("\x1b[H");
    for (number, line) in lines.iter().take(shown).copied().chain(more.as_deref()).enumerate() {
        if number > 0 {
            frame.push('\n');
        }
        frame.push_str("\x1b[K");
        frame.extend(line.chars().take(columns));
    }
    // Not where the last line may fill the screen: the cursor stands on what it wrote.
    let drawn = shown + usize::from(more.is_some());
    if drawn < rows {
        let _ = write!(frame, "\n\x1b[J");
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_room_is_left_out() {
        let check = |text: &str, rows, columns, expected: &str| {
            assert_eq!(frame(text, rows, columns), expected, "{text:?} {rows}x{columns}");
        };
        check("one\ntwo\n", 4, 10, "\x1b[H\x1b[Kone\n\x1b[Ktwo\n\x1b[J");
        check("one\ntwo\n", 2, 10, "\x1b[H\x1b[Kone\n\x1b[Ktwo");
        check("one\ntwo\nthree\n", 2, 14, "\x1b[H\x1b[Kone\n\x1b[K… 2 more lines");
        check("äöüß\n", 3, 2, "\x1b[H\x1b[Käö\n\x1b[J");
        check("a\nb\n", 1, 1, "\x1b[H\x1b[K…");
        check("", 1, 1, "\x1b[H\n\x1b[J");
    }
}
