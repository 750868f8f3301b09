//! Enrolment: lets guests become workers who present a token that an operator has made.
//!
//! A token has 160 bits of randomness, so that guessing is hopeless; guesses are rationed all the same, for each address and in all,
//! so that they cost neither database nor audit much, and are recorded.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use hauberk_database::tokens::{self, Applicant, Redeemed, Spent};
use hauberk_database::{Database, DatabaseError, audit, begin, commit};
use hauberk_protocol::EnrolmentToken;
use hauberk_protocol::keys::CurvePublicKey;
use hauberk_protocol::proto::{Enrol, Enrolled, Refused, RefusedReason};
use hauberk_store::signature::PublicKey;
use serde_json::json;
use tracing::{info, warn};

use crate::greeting::is_name;
use crate::refusal::{check_version, not_ready, refused};

/// Guesses that an address may make at once, and the time until it may make another.
const OF_ADDRESS: Allowance = Allowance { burst: 5, refill: Duration::from_secs(60) };
/// Guesses that all addresses may make at once, and the time until they may make another.
const OF_ALL: Allowance = Allowance { burst: 30, refill: Duration::from_secs(5) };
/// Addresses that are remembered; those that may guess as often as ever are forgotten first.
const ADDRESSES: usize = 1024;
/// Bytes in a signing key at most.
const LONGEST_KEY: usize = 4096;

/// Who presents a token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guest {
    /// The key it has proved to own.
    pub(crate) user: Option<CurvePublicKey>,
    /// Where it is.
    pub(crate) peer_address: Option<IpAddr>,
}

/// See the module's description.
pub(crate) struct EnrolmentDesk {
    database: Database,
    /// The server's own key; without one, nobody needs a token.
    server: Option<CurvePublicKey>,
    guesses: Guesses,
}

impl EnrolmentDesk {
    /// Opens the desk of the server with the key `server`.
    pub(crate) fn new(database: Database, server: Option<CurvePublicKey>) -> Self {
        Self { database, server, guesses: Guesses::default() }
    }

    /// Enrols a guest whose token is good. `kinds` are keys of the kinds that results may be signed with.
    pub(crate) async fn enrol(
        &mut self,
        guest: Guest,
        enrol: &Enrol,
        kinds: &[PublicKey],
    ) -> Result<Enrolled, Refused> {
        let (Some(user), Some(server)) = (guest.user, self.server) else {
            return Err(refused(
                RefusedReason::BadToken,
                "this server runs without encryption: workers join it without a token".to_owned(),
            ));
        };
        let (token, signing_key) = check(enrol, &server, kinds)?;
        let now = Instant::now();
        if let Err(Exhausted { wait, first }) = self.guesses.may(guest.peer_address, now) {
            if first {
                warn!(peer.address = ?guest.peer_address, "too many wrong enrolment tokens: others wait");
                self.record(guest, "worker.enrol.limited", &enrol.name, "too many wrong tokens").await;
            }
            let mut later =
                refused(RefusedReason::BadToken, "too many wrong tokens were presented".to_owned());
            later.retry_after_s = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).max(1);
            return Err(later);
        }
        let applicant = Applicant {
            name: &enrol.name,
            public_key: &user.to_string(),
            signing_key: &signing_key.to_string(),
        };
        let redeemed = self.redeem(&token, applicant, guest).await.map_err(not_ready)?;
        let (reason, message) = match redeemed {
            Redeemed::Enrolled { name, token, created_by } => {
                info!(
                    worker.name = %name, peer.address = ?guest.peer_address,
                    "enrolled {name} by token {token} of {created_by}"
                );
                return Ok(Enrolled { name });
            }
            Redeemed::Before { name } => return Ok(Enrolled { name }),
            Redeemed::Unknown => {
                self.guesses.wrong(guest.peer_address, now);
                (RefusedReason::BadToken, "there is no such token".to_owned())
            }
            Redeemed::Spent(token, spent) => {
                self.guesses.wrong(guest.peer_address, now);
                let why = match spent {
                    Spent::Revoked => "was revoked",
                    Spent::Expired => "has expired",
                    Spent::Used => "was used already",
                };
                (
                    RefusedReason::BadToken,
                    format!("token {token} {why}; make another with `hauberk worker token`"),
                )
            }
            Redeemed::NameTaken(name) => (
                RefusedReason::NameTaken,
                format!("another worker is enrolled as `{name}`; choose another name with --name"),
            ),
            Redeemed::KeyTaken => (
                RefusedReason::NameTaken,
                "this key is enrolled under another name; remove that worker first".to_owned(),
            ),
        };
        self.record(guest, "worker.enrol.refused", &enrol.name, &message).await;
        Err(refused(reason, message))
    }

    async fn redeem(
        &self,
        token: &EnrolmentToken,
        applicant: Applicant<'_>,
        guest: Guest,
    ) -> Result<Redeemed, DatabaseError> {
        let mut client = self.database.client().await?;
        let transaction = begin(&mut client).await?;
        let redeemed = tokens::redeem(&transaction, &token.digest(), applicant).await?;
        if let Redeemed::Enrolled { name, token, created_by } = &redeemed {
            let detail = json!({
                "token": token.get(), "address": address(guest), "public_key": applicant.public_key,
            });
            let who = format!("token {token} of {created_by}");
            audit::record(&transaction, &who, "worker.enrol", name, Some(&detail)).await?;
            commit(transaction).await?;
        }
        Ok(redeemed)
    }

    async fn record(&self, guest: Guest, action: &str, name: &str, why: &str) {
        let who = address(guest).unwrap_or_else(|| "a guest".to_owned());
        let detail = json!({ "reason": why, "public_key": guest.user.map(|user| user.to_string()) });
        let recorded =
            async { audit::record(&self.database.client().await?, &who, action, name, Some(&detail)).await };
        if let Err(error) = recorded.await {
            let error: DatabaseError = error;
            warn!(error = &error as &dyn std::error::Error, "cannot record that a guest was refused");
        }
    }
}

fn address(guest: Guest) -> Option<String> {
    guest.peer_address.map(|address| address.to_string())
}

/// Checks what can be checked before anything is asked of the database.
fn check(
    enrol: &Enrol,
    server: &CurvePublicKey,
    kinds: &[PublicKey],
) -> Result<(EnrolmentToken, PublicKey), Refused> {
    check_version(enrol.protocol)?;
    if !is_name(&enrol.name) {
        return Err(refused(
            RefusedReason::BadHello,
            "a worker's name has 1 to 64 letters, digits, `.`, `_` and `-`, and begins with a letter or digit"
                .to_owned(),
        ));
    }
    let bad_key = |message: String| refused(RefusedReason::SigningKey, message);
    if enrol.signing_key.len() > LONGEST_KEY {
        return Err(bad_key("its signing key is too long".to_owned()));
    }
    let signing_key: PublicKey = enrol
        .signing_key
        .parse()
        .map_err(|error| bad_key(format!("its signing key cannot be read: {error}")))?;
    let is_guix = |key: &PublicKey| matches!(key, PublicKey::Guix(_));
    if !kinds.iter().any(|kind| is_guix(kind) == is_guix(&signing_key)) {
        let (kind, store) = if is_guix(&signing_key) { ("Guix", "Guix's") } else { ("Nix", "Nix's") };
        return Err(bad_key(format!(
            "it signs with a key of {kind}, and this server holds no store of {store}"
        )));
    }
    let token: EnrolmentToken =
        enrol.token.parse().map_err(|error| refused(RefusedReason::BadToken, format!("{error}")))?;
    if token.server() != server {
        return Err(refused(RefusedReason::BadToken, "the token was made for another server".to_owned()));
    }
    Ok((token, signing_key))
}

/// How many guesses are allowed.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    burst: u32,
    refill: Duration,
}

/// Guesses left, as of a moment.
#[derive(Debug, Clone, Copy)]
struct Left {
    guesses: f64,
    at: Instant,
    told: bool,
}

impl Left {
    fn full(allowance: Allowance, now: Instant) -> Self {
        Self { guesses: allowance.burst.into(), at: now, told: false }
    }

    fn refill(&mut self, allowance: Allowance, now: Instant) {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() / allowance.refill.as_secs_f64();
        self.guesses = (self.guesses + gained).min(allowance.burst.into());
        self.at = now;
        if self.guesses >= 1.0 {
            self.told = false;
        }
    }

    fn is_full(&self, allowance: Allowance) -> bool {
        self.guesses >= f64::from(allowance.burst)
    }

    fn may(&mut self, allowance: Allowance) -> Result<(), Exhausted> {
        if self.guesses >= 1.0 {
            return Ok(());
        }
        let first = !std::mem::replace(&mut self.told, true);
        Err(Exhausted { wait: allowance.refill.mul_f64(1.0 - self.guesses), first })
    }
}

/// No guess is left.
#[derive(Debug, PartialEq, Eq)]
struct Exhausted {
    /// Until there is another.
    wait: Duration,
    /// Whether this is the first time since there was one.
    first: bool,
}

/// Wrong tokens, by address and in all.
#[derive(Debug, Default)]
struct Guesses {
    all: Option<Left>,
    addresses: HashMap<Option<IpAddr>, Left>,
}

impl Guesses {
    /// Tells whether somebody at this address may present a token now.
    fn may(&mut self, address: Option<IpAddr>, now: Instant) -> Result<(), Exhausted> {
        if let Some(left) = self.addresses.get_mut(&network(address)) {
            left.refill(OF_ADDRESS, now);
            left.may(OF_ADDRESS)?;
        }
        if let Some(all) = &mut self.all {
            all.refill(OF_ALL, now);
            all.may(OF_ALL)?;
        }
        Ok(())
    }

    /// Counts a wrong token.
    fn wrong(&mut self, address: Option<IpAddr>, now: Instant) {
        let all = self.all.get_or_insert_with(|| Left::full(OF_ALL, now));
        all.guesses = (all.guesses - 1.0).max(0.0);
        if self.addresses.len() >= ADDRESSES {
            self.addresses.retain(|_, left| {
                left.refill(OF_ADDRESS, now);
                !left.is_full(OF_ADDRESS)
            });
        }
        // From more addresses than that, the ration of all holds them up.
        if self.addresses.len() < ADDRESSES {
            let left = self.addresses.entry(network(address)).or_insert_with(|| Left::full(OF_ADDRESS, now));
            left.guesses = (left.guesses - 1.0).max(0.0);
        }
    }
}

/// What counts as one address: of IPv6 the network, as a machine has as many addresses there as it likes.
fn network(address: Option<IpAddr>) -> Option<IpAddr> {
    Some(match address? {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address => address,
    })
}

#[cfg(test)]
mod tests {
    use hauberk_protocol::{PROTOCOL_VERSION, keys::CurveKeyPair};
    use hauberk_store::signature::{guix, nix};

    use super::*;

    fn address(number: u32) -> Option<IpAddr> {
        Some(IpAddr::from(number.to_be_bytes()))
    }

    #[test]
    fn an_address_runs_out_of_guesses_and_gets_others_in_time() {
        let (mut guesses, now) = (Guesses::default(), Instant::now());
        for _ in 0..OF_ADDRESS.burst {
            assert_eq!(guesses.may(address(1), now), Ok(()));
            guesses.wrong(address(1), now);
        }
        let wait = OF_ADDRESS.refill;
        assert_eq!(guesses.may(address(1), now), Err(Exhausted { wait, first: true }));
        assert_eq!(guesses.may(address(1), now), Err(Exhausted { wait, first: false }));
        assert_eq!(guesses.may(address(2), now), Ok(()), "another address may");
        let later = now + OF_ADDRESS.refill;
        assert_eq!(guesses.may(address(1), later), Ok(()));
        guesses.wrong(address(1), later);
        assert!(guesses.may(address(1), later).is_err_and(|exhausted| exhausted.first));
    }

    #[test]
    fn many_addresses_run_out_together_and_are_not_remembered_without_bound() {
        let (mut guesses, now) = (Guesses::default(), Instant::now());
        for number in 0..OF_ALL.burst {
            assert_eq!(guesses.may(address(number), now), Ok(()));
            guesses.wrong(address(number), now);
        }
        assert!(guesses.may(address(9999), now).is_err());
        assert!(guesses.may(address(9999), now + OF_ALL.refill).is_ok());
        for number in 0..5000 {
            guesses.wrong(address(number), now);
        }
        assert_eq!(guesses.addresses.len(), ADDRESSES);
        guesses.wrong(address(1), now + Duration::from_secs(100_000));
        assert_eq!(guesses.addresses.len(), 1);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let parse = |text: &str| network(Some(text.parse().unwrap()));
        assert_eq!(parse("2001:db8::1"), parse("2001:db8::ffff:1"));
        assert_ne!(parse("2001:db8::1"), parse("2001:db8:0:1::1"));
        assert_ne!(parse("192.0.2.1"), parse("192.0.2.2"));
    }

    #[test]
    fn an_application_is_checked_before_the_database_is_asked() {
        let server = *CurveKeyPair::generate().public();
        let token = EnrolmentToken::generate(&server);
        let ours = nix::SecretKey::generate("w-1").unwrap().public_key();
        let good = Enrol {
            protocol: PROTOCOL_VERSION,
            token: token.to_string(),
            name: "w".to_owned(),
            machine: String::new(),
            signing_key: ours.to_string(),
        };
        let kinds = [PublicKey::Nix(ours)];
        assert!(check(&good, &server, &kinds).is_ok());
        let other = EnrolmentToken::generate(CurveKeyPair::generate().public()).to_string();
        let guix = guix::SecretKey::generate().unwrap().public_key().to_string();
        type Spoil = Box<dyn Fn(&mut Enrol)>;
        let cases: [(Spoil, RefusedReason); 6] = [
            (Box::new(|enrol| enrol.protocol = 0), RefusedReason::Protocol),
            (Box::new(|enrol| enrol.name = "a b".to_owned()), RefusedReason::BadHello),
            (Box::new(|enrol| enrol.signing_key = "x".repeat(5000)), RefusedReason::SigningKey),
            (Box::new(move |enrol| enrol.signing_key.clone_from(&guix)), RefusedReason::SigningKey),
            (Box::new(|enrol| enrol.token = "hauberk1-x".to_owned()), RefusedReason::BadToken),
            (Box::new(move |enrol| enrol.token.clone_from(&other)), RefusedReason::BadToken),
        ];
        for (spoil, reason) in cases {
            let mut bad = good.clone();
            spoil(&mut bad);
            assert_eq!(check(&bad, &server, &kinds).unwrap_err().reason(), reason);
        }
    }
}
