//! Who is let through the handshake: the handler of ZeroMQ's authentication protocol (ZAP, ZeroMQ RFC 27).

use std::io;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use tracing::{debug, error, info};

use super::error::SocketError;
use crate::keys::CurvePublicKey;

/// Where libzmq looks for the handler.
const ZAP_ENDPOINT: &str = "inproc://zeromq.zap.01";
const STOP_ENDPOINT: &str = "inproc://hauberk.admission.stop";

/// What becomes of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The peer gets in, and its key comes with each of its frames.
    Admit,
    /// The peer is turned away for good: it does not try again by itself.
    Refuse,
}

/// Decides about handshakes. All handshakes of a context wait for it, so it answers from memory.
pub trait AdmissionPolicy: Send + Sync + 'static {
    /// Decides about a peer that has proved to own `key` and comes from `address`.
    fn admit(&self, key: &CurvePublicKey, address: Option<IpAddr>) -> Admission;
}

impl<F> AdmissionPolicy for F
where
    F: Fn(&CurvePublicKey, Option<IpAddr>) -> Admission + Send + Sync + 'static,
{
    fn admit(&self, key: &CurvePublicKey, address: Option<IpAddr>) -> Admission {
        self(key, address)
    }
}

/// Admits whoever has a key. The key is known afterwards, and the server decides message by message what a guest may do.
#[derive(Debug, Clone, Copy, Default)]
pub struct AdmitEveryKey;

impl AdmissionPolicy for AdmitEveryKey {
    fn admit(&self, _key: &CurvePublicKey, _address: Option<IpAddr>) -> Admission {
        Admission::Admit
    }
}

/// The thread that answers libzmq's questions. Dropping it ends the thread.
pub(super) struct AdmissionThread {
    stop: zmq::Socket,
    thread: Option<JoinHandle<()>>,
}

impl AdmissionThread {
    pub(super) fn start(
        context: &zmq::Context,
        policy: Arc<dyn AdmissionPolicy>,
    ) -> Result<Self, SocketError> {
        let setup = || SocketError::setup("set up the handler of ZeroMQ's authentication");
        let requests = context.socket(zmq::REP).map_err(setup())?;
        requests.set_linger(0).map_err(setup())?;
        requests.bind(ZAP_ENDPOINT).map_err(setup())?;
        let stopped = context.socket(zmq::PAIR).map_err(setup())?;
        stopped.bind(STOP_ENDPOINT).map_err(setup())?;
        let stop = context.socket(zmq::PAIR).map_err(setup())?;
        stop.set_linger(0).map_err(setup())?;
        stop.connect(STOP_ENDPOINT).map_err(setup())?;
        let thread = Builder::new()
            .name("hauberk-zap".to_owned())
            .spawn(move || serve(&requests, &stopped, &*policy))
            .map_err(|source| SocketError::Setup {
                operation: "start the thread that admits keys",
                source,
            })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for AdmissionThread {
    fn drop(&mut self) {
        if let Err(error) = self.stop.send(zmq::Message::new(), zmq::DONTWAIT) {
            // The thread cannot be ended; waiting for it would hang.
            error!(error = &error as &dyn std::error::Error, "cannot stop the thread that admits keys");
            return;
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the thread that admits keys panicked");
        }
    }
}

fn serve(requests: &zmq::Socket, stopped: &zmq::Socket, policy: &dyn AdmissionPolicy) {
    loop {
        let mut items = [requests.as_poll_item(zmq::POLLIN), stopped.as_poll_item(zmq::POLLIN)];
        match zmq::poll(&mut items, -1) {
            Ok(_) => {}
            Err(zmq::Error::EINTR) => continue,
            Err(error) => {
                let error = io::Error::from(error);
                error!(error = &error as &dyn std::error::Error, "the thread that admits keys cannot go on");
                return;
            }
        }
        let (asked, ended) = (items[0].is_readable(), items[1].is_readable());
        if asked {
            let answered = requests.recv_multipart(zmq::DONTWAIT).and_then(|request| {
                requests.send_multipart(answer(&request, policy).map(|part| part.to_vec()), 0)
            });
            match answered {
                Ok(()) | Err(zmq::Error::EAGAIN | zmq::Error::EINTR) => {}
                Err(error) => {
                    let error = io::Error::from(error);
                    error!(error = &error as &dyn std::error::Error, "cannot answer a handshake");
                    return;
                }
            }
        }
        if ended {
            return;
        }
    }
}

/// What a handshake is answered: status code, reason, and the name that libzmq ties to the connection's frames.
struct Verdict {
    code: &'static [u8],
    reason: &'static [u8],
    user: String,
}

/// Answers one request. Its parts: version, request id, domain, address, routing id of the listener, mechanism, credentials.
fn answer(request: &[Vec<u8>], policy: &dyn AdmissionPolicy) -> impl Iterator<Item = Box<[u8]>> {
    let verdict = judge(request, policy);
    let id = request.get(1).cloned().unwrap_or_default();
    let parts: [Box<[u8]>; 6] = [
        Box::from(&b"1.0"[..]),
        id.into(),
        verdict.code.into(),
        verdict.reason.into(),
        verdict.user.into_bytes().into(),
        Box::from(&b""[..]),
    ];
    parts.into_iter()
}

fn judge(request: &[Vec<u8>], policy: &dyn AdmissionPolicy) -> Verdict {
    let refuse = |code, reason| Verdict { code, reason, user: String::new() };
    let [version, _id, _domain, address, _routing_id, mechanism, credentials @ ..] = request else {
        return refuse(b"500", b"malformed request");
    };
    if version != b"1.0" || mechanism != b"CURVE" {
        return refuse(b"400", b"only CURVE is served");
    }
    let [key] = credentials else { return refuse(b"500", b"malformed request") };
    let Ok(key) = CurvePublicKey::try_from(key.as_slice()) else { return refuse(b"400", b"malformed key") };
    let address = std::str::from_utf8(address).ok().and_then(parse_peer_address);
    // A panic must not end the thread: nobody would get in any more.
    match catch_unwind(AssertUnwindSafe(|| policy.admit(&key, address))) {
        Ok(Admission::Admit) => {
            debug!(peer.key = %key, peer.address = ?address, "admitted {key}");
            Verdict { code: b"200", reason: b"OK", user: key.to_string() }
        }
        Ok(Admission::Refuse) => {
            info!(peer.key = %key, peer.address = ?address, "refused {key} in the handshake");
            refuse(b"400", b"refused")
        }
        Err(_) => refuse(b"500", b"internal error"),
    }
}

/// Reads the address of a peer as libzmq gives it: without port, perhaps with an interface, IPv4 perhaps as IPv6.
pub(super) fn parse_peer_address(text: &str) -> Option<IpAddr> {
    let bare = text.split_once('%').map_or(text, |(address, _)| address);
    bare.trim_start_matches('[')
        .trim_end_matches(']')
        .parse()
        .ok()
        .map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(parts: &[&[u8]]) -> Vec<Vec<u8>> {
        parts.iter().map(|part| part.to_vec()).collect()
    }

    #[test]
    fn only_a_whole_curve_request_is_admitted() {
        let key = [7_u8; 32];
        let whole: [&[u8]; 7] = [b"1.0", b"1", b"hauberk", b"127.0.0.1", b"", b"CURVE", &key];
        let verdict = judge(&request(&whole), &AdmitEveryKey);
        assert_eq!((verdict.code, verdict.user), (&b"200"[..], CurvePublicKey::from_bytes(key).to_string()));
        for broken in 0..whole.len() {
            assert_ne!(judge(&request(&whole[..broken]), &AdmitEveryKey).code, b"200");
        }
        let plain: [&[u8]; 6] = [b"1.0", b"1", b"hauberk", b"127.0.0.1", b"", b"NULL"];
        assert_eq!(judge(&request(&plain), &AdmitEveryKey).code, b"400");
        let short: [&[u8]; 7] = [b"1.0", b"1", b"hauberk", b"127.0.0.1", b"", b"CURVE", &key[1..]];
        assert_eq!(judge(&request(&short), &AdmitEveryKey).code, b"400");
    }

    #[test]
    fn a_panicking_policy_refuses() {
        let policy =
            |_: &CurvePublicKey, _: Option<IpAddr>| -> Admission { panic!("a mistake in the policy") };
        let whole: [&[u8]; 7] = [b"1.0", b"1", b"", b"::1", b"", b"CURVE", &[7; 32]];
        assert_eq!(judge(&request(&whole), &policy).code, b"500");
    }

    #[test]
    fn peer_addresses_are_read_in_all_forms() {
        let check = |text: &str, expected: &str| {
            assert_eq!(parse_peer_address(text), Some(expected.parse().unwrap()), "{text}");
        };
        check("10.0.0.1", "10.0.0.1");
        check("::ffff:10.0.0.1", "10.0.0.1");
        check("fe80::1%eth0", "fe80::1");
        check("[::1]", "::1");
        assert_eq!(parse_peer_address("nonsense"), None);
    }
}
