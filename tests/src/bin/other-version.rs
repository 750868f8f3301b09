//! A peer of another protocol version:
//!
//! - `other-version worker ENDPOINT SERVER-PUBLIC-KEY-FILE OWN-KEY-FILE` says Hello and prints the answer;
//! - `other-version server ENDPOINT OWN-KEY-FILE` refuses whatever it is told as a later version would, and prints that it was told.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, bail};
use hauberk_protocol::{
    PROTOCOL_VERSION, ServerMessage, WorkerMessage,
    keys::{CurveKeyPair, CurvePublicKey},
    proto::{Hello, Refused, RefusedReason},
    socket::{
        AdmitEveryKey, ClientSecurity, ConnectionEvent, Context, DealerEvent, DealerOptions, DealerSocket,
        RouterOptions, RouterSocket, ServerSecurity,
    },
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["worker", endpoint, server, own] => {
            tokio::time::timeout(Duration::from_secs(30), worker(endpoint, server, own)).await?
        }
        ["server", endpoint, own] => server(endpoint, own).await,
        _ => bail!(
            "usage: other-version worker ENDPOINT SERVER-PUBLIC-KEY-FILE OWN-KEY-FILE | server ENDPOINT OWN-KEY-FILE"
        ),
    }
}

async fn worker(endpoint: &str, server: &str, own: &str) -> Result<()> {
    let keys = CurveKeyPair::read(Path::new(own))?;
    let server = CurvePublicKey::read(Path::new(server))?;
    let security = ClientSecurity::Curve { keys: &keys, server: &server };
    let mut socket =
        DealerSocket::connect(&Context::new(), endpoint.parse()?, security, &DealerOptions::backend())?;
    loop {
        match socket.next().await? {
            DealerEvent::Connection(ConnectionEvent::Connected) => {
                let hello = Hello {
                    protocol: PROTOCOL_VERSION + 1,
                    name: "worker-1".to_owned(),
                    machine: "later".to_owned(),
                    version: "later".to_owned(),
                    store_directory: "/nix/store".to_owned(),
                    slots: 1,
                    ..Hello::default()
                };
                socket.send(&WorkerMessage::new(0, 1, hello).encode()?).await?;
            }
            DealerEvent::Frame(frame) => {
                println!("{:?}", ServerMessage::decode(&frame)?.body);
                return Ok(());
            }
            DealerEvent::Connection(event) => println!("{event:?}"),
        }
    }
}

async fn server(endpoint: &str, own: &str) -> Result<()> {
    let keys = CurveKeyPair::read(Path::new(own))?;
    let context = Context::with_admission(AdmitEveryKey);
    let options = RouterOptions::backend();
    let mut socket = RouterSocket::bind(&context, endpoint.parse()?, ServerSecurity::Curve(&keys), &options)?;
    println!("listening");
    loop {
        let incoming = socket.recv().await?;
        println!("received {} bytes", incoming.frame.len());
        let refused = Refused {
            reason: RefusedReason::Protocol.into(),
            message: format!("this server speaks version {} of the protocol", PROTOCOL_VERSION + 1),
            retry_after_s: 0,
        };
        socket
            .send(incoming.routing_id, &ServerMessage::new(0, 1, refused).encode()?)
            .context("answering")?;
    }
}
