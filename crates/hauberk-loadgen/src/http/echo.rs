//! The least that an answer over TCP costs.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result};

/// A thread that answers each message with one of a fixed size, without looking at it. It ends when its clients do.
pub(crate) struct Echo {
    port: u16,
}

impl Echo {
    /// Listens on loopback for one client that sends messages of `request` bytes and gets `answer` bytes for each.
    pub(crate) fn start(request: usize, answer: usize) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listening for the echo")?;
        let port = listener.local_addr().context("asking for the echo's port")?.port();
        thread::Builder::new()
            .name("echo".to_owned())
            // A client that is gone ends it.
            .spawn(move || listener.accept().and_then(|(stream, _)| serve(stream, request, answer)))
            .context("starting the echo's thread")?;
        Ok(Self { port })
    }

    /// Gives its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

fn serve(mut stream: TcpStream, request: usize, answer: usize) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut message, answer) = (vec![0; request.max(4096)], vec![b'x'; answer]);
    loop {
        let mut received = 0;
        while received < request {
            match stream.read(&mut message)? {
                0 => return Ok(()),
                count => received += count,
            }
        }
        stream.write_all(&answer)?;
    }
}
