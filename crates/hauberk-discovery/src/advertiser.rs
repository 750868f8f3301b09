//! Letting a server be found.

use std::time::Duration;

use mdns_sd::{DaemonEvent, ServiceDaemon, ServiceInfo};
use tracing::{debug, info, warn};

use crate::{Advertisement, DiscoveryError, Interfaces, SERVICE_TYPE};

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(3);

/// Announces a server for as long as it lives.
pub struct Advertiser {
    daemon: ServiceDaemon,
    full_name: String,
}

impl Advertiser {
    /// Begins to announce a server on the given interfaces, under all addresses that they have and will have. Dots in its name
    /// become hyphens, and a name that is taken on the network gets a number: `north (2)`.
    ///
    /// # Errors
    ///
    /// Fails when the advertisement does not fit a record, or no thread that speaks mDNS can be started.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub fn start(advertisement: &Advertisement, interfaces: &Interfaces) -> Result<Self, DiscoveryError> {
        let properties =
            advertisement.to_properties().map_err(|source| DiscoveryError::Advertisement { source })?;
        let announce = || DiscoveryError::mdns("announce the server");
        let instance = announced_name(&advertisement.instance);
        // A host name of our own: the machine's may be announced by another responder, with other addresses.
        let host = format!("hauberk-{:08x}.local.", random_number());
        let service =
            ServiceInfo::new(SERVICE_TYPE, &instance, &host, "", advertisement.backend_port, &properties[..])
                .map_err(announce())?
                .enable_addr_auto();
        let full_name = service.get_fullname().to_owned();
        let daemon = interfaces.start()?;
        let events = daemon.monitor().map_err(announce())?;
        tokio::spawn(async move {
            while let Ok(event) = events.recv_async().await {
                report(&event);
            }
        });
        daemon.register(service).map_err(announce())?;
        info!(
            server.name = instance,
            server.port = advertisement.backend_port,
            "announcing {instance} of farm {} by mDNS",
            advertisement.farm
        );
        Ok(Self { daemon, full_name })
    }

    /// Says goodbye, so that the server vanishes from the others' lists at once, and waits until that is sent.
    pub async fn stop(self) {
        let goodbye = async {
            if let Ok(unregistered) = self.daemon.unregister(&self.full_name) {
                // Errors mean that the thread has ended, and nothing is announced any more.
                let _ = unregistered.recv_async().await;
            }
            if let Ok(ended) = self.daemon.shutdown() {
                let _ = ended.recv_async().await;
            }
        };
        if tokio::time::timeout(GOODBYE, goodbye).await.is_err() {
            warn!("the mDNS thread does not end; the server will be listed for two minutes more");
        }
    }
}

impl Drop for Advertiser {
    /// Says goodbye without waiting for it to be sent.
    fn drop(&mut self) {
        if let Err(error) = self.daemon.shutdown() {
            debug!(error = &error as &dyn std::error::Error, "the mDNS thread has ended before");
        }
    }
}

fn report(event: &DaemonEvent) {
    match event {
        DaemonEvent::NameChange(change) => warn!(
            server.name = change.new_name,
            "the name {} is taken on this network, announcing the server as {}",
            change.original,
            change.new_name
        ),
        DaemonEvent::Error(error) => warn!(error = error as &dyn std::error::Error, "mDNS has a problem"),
        DaemonEvent::IpAdd(address) => debug!("announcing the server at {address} as well"),
        DaemonEvent::IpDel(address) => debug!("announcing the server at {address} no longer"),
        _ => {}
    }
}

/// Gives the name to announce. The mDNS library cannot rename a service whose name has dots or backslashes when another
/// has taken it.
fn announced_name(instance: &str) -> String {
    instance.replace(['.', '\\'], "-")
}

fn random_number() -> u32 {
    getrandom::u32().expect("the operating system has randomness")
}
