//! Workers: real sessions over real sockets with keys of their own; only the builder behind them is simulated.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hauberk_database::workers::{self, Enrolment, NewWorker};
use hauberk_protocol::keys::CurveKeyPair;
use hauberk_store::StoreDirectory;
use hauberk_store::signature::nix::SecretKey;
use hauberk_worker::{
    LogLimits, PublishAddress, Security, ServerLocation, SessionConfig, SharedContext, SpoolPlace,
    TrustCheck, WorkerError, native_system, run_with_builder,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Lab, Server};
use hauberk_loadgen::simulated::SimulatedBuilder;

/// Sessions that share a ZeroMQ context: each may hold two connections, and a context holds 300.
const SESSIONS_PER_CONTEXT: usize = 150;
/// Running builds have no time to end when a laboratory is taken down.
const GRACE: Duration = Duration::from_secs(1);

/// How many workers there are and what each takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workers {
    /// Number of workers.
    pub(crate) count: usize,
    /// Builds at once on all of them together, divided evenly.
    pub(crate) slots: usize,
    /// Attempts each may hold besides those that run.
    pub(crate) ahead: u32,
}

impl Workers {
    fn slots_of(&self, index: usize) -> Result<NonZeroU32> {
        let rest = usize::from(index < self.slots % self.count.max(1));
        let slots = u32::try_from(self.slots / self.count.max(1) + rest).context("too many slots")?;
        NonZeroU32::new(slots).context("there must be at least as many slots as workers")
    }
}

/// Where the outputs of workers are to be had.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Published<'a> {
    /// The key that signs them.
    pub(crate) key: &'a SecretKey,
    /// The port of this host that serves them.
    pub(crate) port: u16,
}

/// Workers that run. They end when dropped.
#[derive(Debug)]
pub(crate) struct Crew {
    stop: CancellationToken,
    sessions: JoinSet<Result<(), WorkerError>>,
}

impl Crew {
    /// Enrols workers and starts them. Their spools are below `spools`, or else in memory.
    pub(crate) async fn start(
        lab: &Lab,
        server: &Server,
        shape: Workers,
        builder: &SimulatedBuilder,
        outputs: Published<'_>,
        spools: Option<&Path>,
    ) -> Result<Self> {
        let stop = CancellationToken::new();
        let mut crew = Self { stop, sessions: JoinSet::new() };
        let public_key = outputs.key.public_key().to_string();
        let address = format!("127.0.0.1:{}", server.backend_port()).parse().context("naming the server")?;
        let client = lab.database().client().await?;
        let mut context = SharedContext::default();
        for index in 0..shape.count {
            if index % SESSIONS_PER_CONTEXT == 0 && index > 0 {
                context = SharedContext::default();
            }
            let name = format!("worker-{:04}", index + 1);
            let keys = CurveKeyPair::generate();
            let worker = NewWorker {
                name: &name,
                public_key: &keys.public().to_string(),
                signing_key: &public_key,
                enrolled_by: "load",
            };
            match workers::add(&client, worker).await? {
                Enrolment::Done(_) => {}
                other => bail!("{name} cannot be enrolled: {other:?}"),
            }
            let spool = spools.map_or(SpoolPlace::Memory, |spools| SpoolPlace::Directory(spools.join(&name)));
            let config = SessionConfig {
                name,
                machine: "load".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                store_directory: StoreDirectory::nix(),
                systems: vec![native_system()],
                features: Vec::new(),
                mandatory_features: Vec::new(),
                slots: shape.slots_of(index)?,
                ahead: shape.ahead,
                publish: PublishAddress::Port(outputs.port),
                signing_key: public_key.clone(),
                cores: 1,
                memory_bytes: 1 << 30,
                daemon: "simulated".to_owned(),
                security: Security::Curve { keys, server: *lab.curve() },
                server: ServerLocation::Addresses(vec![Clone::clone(&address)]),
                spool,
                log_limits: LogLimits::default(),
                trust_check: TrustCheck::Require,
                grace: GRACE,
                context: context.clone(),
            };
            let builder = Arc::new(builder.clone());
            crew.sessions.spawn(run_with_builder(config, builder, crew.stop.clone(), || ()));
        }
        Ok(crew)
    }

    /// Waits until a worker ends by itself, which none should.
    pub(crate) async fn fail(&mut self) -> anyhow::Error {
        match self.sessions.join_next().await {
            Some(Ok(Err(error))) => anyhow::Error::new(error).context("a worker ended"),
            Some(Ok(Ok(()))) => anyhow::anyhow!("a worker ended by itself"),
            Some(Err(error)) => anyhow::Error::new(error).context("a worker broke"),
            None => std::future::pending().await,
        }
    }

    /// Ends all workers in order.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.sessions.join_next().await {
            ended.context("a worker broke")?.context("a worker ended badly")?;
        }
        Ok(())
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_divided_without_rest() {
        let shape = Workers { count: 3, slots: 10, ahead: 0 };
        let slots: Vec<u32> = (0..3).map(|index| shape.slots_of(index).unwrap().get()).collect();
        assert_eq!(slots, [4, 3, 3]);
        Workers { count: 3, slots: 2, ahead: 0 }.slots_of(2).unwrap_err();
    }
}
