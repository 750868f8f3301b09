//! Many clients at once, each of which waits for its answer, in one thread.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// A server that says nothing for so long has failed, in milliseconds.
const PATIENCE: u16 = 30_000;

/// Clients with a connection each.
pub(crate) struct Crowd {
    epoll: Epoll,
    members: Vec<Member>,
}

struct Member {
    stream: TcpStream,
    /// Bytes of the answer still to come.
    left: usize,
    /// The request sent last.
    at: usize,
}

impl Crowd {
    /// Connects `count` clients to a port of this host.
    pub(crate) fn connect(port: u16, count: usize) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("making an epoll")?;
        let mut members = Vec::with_capacity(count);
        for index in 0..count {
            let stream = TcpStream::connect(("127.0.0.1", port)).context("connecting")?;
            stream.set_nodelay(true).context("setting nodelay")?;
            stream.set_nonblocking(true).context("setting nonblocking")?;
            epoll
                .add(stream.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, index as u64))
                .context("watching a connection")?;
            members.push(Member { stream, left: 0, at: index * 7919 });
        }
        Ok(Self { epoll, members })
    }

    /// Lets each client ask for files whose answers have `size` bytes, one after the other, for `span`. Gives the number of
    /// answers to all of them in a second.
    pub(crate) fn ask_again(&mut self, requests: &[Vec<u8>], size: usize, span: Duration) -> Result<f64> {
        let ask = |member: &mut Member| -> Result<()> {
            member.at = (member.at + 1) % requests.len();
            member.left = size;
            member.stream.write_all(&requests[member.at]).context("asking")
        };
        let mut buffer = vec![0; 64 * 1024];
        let mut events = vec![EpollEvent::empty(); self.members.len()];
        let (began, mut count) = (Instant::now(), 0_u64);
        for member in &mut self.members {
            ask(member)?;
        }
        let mut waiting = self.members.len();
        let mut over = false;
        while waiting > 0 {
            let ready = self.epoll.wait(&mut events, EpollTimeout::from(PATIENCE)).context("waiting")?;
            if ready == 0 {
                bail!("no answer came for {PATIENCE} ms");
            }
            over = over || began.elapsed() >= span;
            for event in &events[..ready] {
                let member = &mut self.members[usize::try_from(event.data())?];
                match member.stream.read(&mut buffer) {
                    Ok(0) => bail!("a connection ended"),
                    Ok(received) => {
                        member.left =
                            member.left.checked_sub(received).context("an answer is longer than before")?;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error).context("receiving"),
                }
                if member.left == 0 {
                    count += 1;
                    if over {
                        waiting -= 1;
                    } else {
                        ask(member)?;
                    }
                }
            }
        }
        Ok(count as f64 / began.elapsed().as_secs_f64())
    }
}
