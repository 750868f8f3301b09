//! Passes TCP connections on, and holds every byte back for a while: a long way, where the kernel cannot simulate one.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Pieces that are under way in one direction of a connection at most.
const UNDER_WAY: usize = 1024;

/// Pass TCP connections on, late
#[derive(Debug, Parser)]
struct Options {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,

    /// Where to pass connections on to
    #[arg(long)]
    to: SocketAddr,

    /// How late everything comes, each way
    #[arg(long)]
    delay_ms: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    let delay = Duration::from_millis(options.delay_ms);
    let listener = TcpListener::bind(options.listen).await.context("listening")?;
    loop {
        let (client, _) = listener.accept().await.context("taking a connection")?;
        tokio::spawn(async move {
            // A target that cannot be reached closes the connection, as it would without us.
            let Ok(server) = TcpStream::connect(options.to).await else { return };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::spawn(pass(from_client, to_server, delay));
            tokio::spawn(pass(from_server, to_client, delay));
        });
    }
}

async fn pass(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, delay: Duration) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    tokio::spawn(async move {
        while let Some((due, piece)) = receiver.recv().await {
            sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    });
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length) = from.read(&mut buffer).await {
        if length == 0 || sender.send((Instant::now() + delay, buffer[..length].to_vec())).await.is_err() {
            return;
        }
    }
}
