//! The least that an answer over TCP costs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use clap::Args;

/// A process of its own, as servers are, that answers each message with one of a fixed size, without looking at it. It ends when
/// dropped, and also when its client is gone.
pub(crate) struct Echo {
    child: Child,
    port: u16,
}

/// Answers one client that sends messages of a size with messages of another size
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct EchoOptions {
    /// Bytes of each message it gets
    request: usize,

    /// Bytes of each message it sends
    answer: usize,
}

impl Echo {
    /// Listens on loopback for one client that sends messages of `request` bytes and gets `answer` bytes for each.
    pub(crate) fn start(request: usize, answer: usize) -> Result<Self> {
        let program = std::env::current_exe().context("finding the own program")?;
        let mut command = Command::new(program);
        command.args(["echo", &request.to_string(), &answer.to_string()]);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting the echo")?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line).context("waiting for the echo")?;
        }
        let mut echo = Self { child, port: 0 };
        echo.port = line.trim().parse().context("asking for the echo's port")?;
        Ok(echo)
    }

    /// Gives its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Is the echo: says its port on standard output, and serves one client.
pub(crate) fn echo(options: EchoOptions) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listening for the echo")?;
    println!("{}", listener.local_addr().context("asking for the echo's port")?.port());
    let (stream, _) = listener.accept().context("waiting for the echo's client")?;
    // A client that is gone ends it.
    let _ = serve(stream, options);
    Ok(())
}

fn serve(mut stream: TcpStream, options: EchoOptions) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut message, answer) = (vec![0; options.request.max(4096)], vec![b'x'; options.answer]);
    loop {
        let mut received = 0;
        while received < options.request {
            match stream.read(&mut message)? {
                0 => return Ok(()),
                count => received += count,
            }
        }
        stream.write_all(&answer)?;
    }
}
