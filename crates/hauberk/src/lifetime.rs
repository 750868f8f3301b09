//! Begin and end of a process: readiness for the service manager, and signals.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::exit::Failure;

/// Raises the number of open files and connections to what the system allows: shells give 1,024.
pub(crate) fn allow_many_descriptors() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Where it is refused, servers take fewer connections.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// Gives a token that is cancelled by SIGTERM or SIGINT. A second signal ends the process at once.
pub(crate) fn stop_on_signals() -> Result<CancellationToken, Failure> {
    let listen = |kind| {
        signal(kind)
            .map_err(|error| Failure::other(anyhow::Error::new(error).context("cannot listen to signals")))
    };
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("ending; another signal ends at once");
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
        token.cancel();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        warn!("ended at once");
        std::process::exit(1);
    });
    Ok(stop)
}

/// Tells the service manager, if there is one, that the process serves.
pub(crate) fn ready() {
    if let Err(error) = sd_notify::notify(&[NotifyState::Ready]) {
        warn!(error = &error as &dyn std::error::Error, "cannot tell the service manager that we are ready");
    }
    info!("ready");
}
