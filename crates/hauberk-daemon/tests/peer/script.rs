//! A peer that follows a script.

use hauberk_daemon::{Connection, DaemonError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::JoinHandle,
};

pub(crate) const CLIENT_MAGIC: u64 = 0x6e69_7863;
pub(crate) const DAEMON_MAGIC: u64 = 0x6478_696f;
pub(crate) const NEXT: u64 = 0x6f6c_6d67;
pub(crate) const READ: u64 = 0x6461_7461;
pub(crate) const WRITE: u64 = 0x6461_7416;
pub(crate) const LAST: u64 = 0x616c_7473;
pub(crate) const ERROR: u64 = 0x6378_7470;
pub(crate) const START_ACTIVITY: u64 = 0x5354_5254;
pub(crate) const RESULT: u64 = 0x5253_4c54;

/// Bytes as the protocol lays them out.
#[derive(Default, Clone)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        let mut this = self.number(bytes.len() as u64);
        this.0.extend_from_slice(bytes);
        this.0.resize(this.0.len().next_multiple_of(8), 0);
        this
    }

    pub(crate) fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }
}

/// A step of the peer.
#[derive(Clone)]
pub(crate) enum Step {
    /// Waits for exactly these bytes.
    Expect(Bytes),
    /// Sends bytes.
    Say(Bytes),
}

/// Gives the greeting of a daemon of that version, without what it tells after the client's answer.
pub(crate) fn greeting(version: u64) -> Vec<Step> {
    vec![
        Step::Expect(Bytes::new().number(CLIENT_MAGIC)),
        Step::Say(Bytes::new().number(DAEMON_MAGIC).number(version)),
    ]
}

/// Follows the script and then hangs up, when it has read whatever else comes.
pub(crate) fn follow(script: Vec<Step>, mut stream: DuplexStream) -> JoinHandle<()> {
    tokio::spawn(async move {
        for step in script {
            match step {
                Step::Expect(Bytes(expected)) => {
                    let mut found = vec![0; expected.len()];
                    stream.read_exact(&mut found).await.unwrap();
                    assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(&expected));
                }
                Step::Say(Bytes(bytes)) => {
                    // A client that had enough may have hung up.
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
            }
        }
        let _ = stream.shutdown().await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
}

/// Greets a peer that follows the script.
pub(crate) async fn greet(
    script: Vec<Step>,
) -> (Result<Connection<DuplexStream>, DaemonError>, JoinHandle<()>) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let peer = follow(script, theirs);
    (Connection::greet(ours, None).await, peer)
}
