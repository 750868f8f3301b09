//! Where clients come from.

use std::{
    fmt, io,
    net::SocketAddr,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net as unix,
    },
};

use nix::sys::socket::{AddressFamily, Backlog, SockaddrLike, SockaddrStorage, getsockname, listen};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::socket::Socket;

/// Clients that wait to be accepted, at most, where the kernel allows it. The standard library asks for 128; a crowd that comes at once
/// would have to try again a second later.
const BACKLOG: i32 = 4096;

/// How the kernel sends to clients on the same machine, whatever its default is: every kernel has it and lets everybody use it. Others, as BBR,
/// spread packets over time for the sake of a line that is not there; then both sides wait.
const UNPACED: &[u8] = b"reno";

/// A socket that clients connect to, bound already.
#[derive(Debug)]
pub enum Listener {
    /// A port.
    Tcp(std::net::TcpListener),
    /// A socket of this machine.
    Unix(unix::UnixListener),
}

/// A listener on a runtime.
#[derive(Debug)]
pub(super) enum SettledListener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A client that has come, on no runtime yet.
#[derive(Debug)]
pub(super) enum Arrival {
    Tcp(std::net::TcpStream),
    Unix(unix::UnixStream),
}

impl Listener {
    /// Takes a listening socket that was made by somebody else, as systemd does.
    ///
    /// # Errors
    /// A descriptor that is no socket, or one of another kind.
    pub fn from_descriptor(descriptor: OwnedFd) -> io::Result<Self> {
        let name: SockaddrStorage = getsockname(descriptor.as_raw_fd())?;
        match name.family() {
            Some(AddressFamily::Inet | AddressFamily::Inet6) => Ok(Self::Tcp(descriptor.into())),
            Some(AddressFamily::Unix) => Ok(Self::Unix(descriptor.into())),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Gives its address, where it is one of the network.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn local_address(&self) -> io::Result<Option<SocketAddr>> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Some),
            Self::Unix(_) => Ok(None),
        }
    }

    /// Brings it onto the runtime of this thread.
    pub(super) fn settle(self) -> io::Result<SettledListener> {
        match &self {
            Self::Tcp(listener) => listen(listener, Backlog::new(BACKLOG)?)?,
            Self::Unix(listener) => listen(listener, Backlog::new(BACKLOG)?)?,
        }
        match self {
            Self::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener).map(SettledListener::Tcp)
            }
            Self::Unix(listener) => {
                listener.set_nonblocking(true)?;
                UnixListener::from_std(listener).map(SettledListener::Unix)
            }
        }
    }
}

impl SettledListener {
    /// Waits for a client. It is on no runtime then, and may be given to another thread.
    pub(super) async fn accept(&self) -> io::Result<Arrival> {
        match self {
            Self::Tcp(listener) => listener.accept().await?.0.into_std().map(Arrival::Tcp),
            Self::Unix(listener) => listener.accept().await?.0.into_std().map(Arrival::Unix),
        }
    }
}

impl From<std::net::TcpListener> for Listener {
    fn from(listener: std::net::TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<unix::UnixListener> for Listener {
    fn from(listener: unix::UnixListener) -> Self {
        Self::Unix(listener)
    }
}

impl Arrival {
    /// Brings it onto the runtime of this thread.
    pub(super) fn settle(self) -> io::Result<Socket> {
        match self {
            Self::Tcp(stream) => {
                stream.set_nodelay(true)?;
                if stream.peer_addr()?.ip().to_canonical().is_loopback() {
                    // Where the system's default cannot be replaced, it is only slower.
                    let _ = SockRef::from(&stream).set_tcp_congestion(UNPACED);
                }
                TcpStream::from_std(stream).map(Socket::Tcp)
            }
            Self::Unix(stream) => UnixStream::from_std(stream).map(Socket::Unix),
        }
    }
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(stream) => match stream.peer_addr() {
                Ok(address) => address.fmt(f),
                Err(_) => f.write_str("a client that is gone"),
            },
            Self::Unix(_) => f.write_str("a client of this machine"),
        }
    }
}
