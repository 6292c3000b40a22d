//! Finding data servers without the broker, at the addresses of
//! `DATASERVER_PEERS`.

use std::sync::Arc;
use std::time::Duration;

use holdfast_bus::BusHealth;
use holdfast_core::node::Address;
use holdfast_core::settings::ListenAddress;
use holdfast_runtime::{Runtime, Task};
use tokio::sync::{mpsc, watch};
use tracing::debug;

use super::{ClusterConfig, Command, Snapshot};
use crate::data_servers::DataServers;

/// Most peers that are asked in one round: a DNS name may resolve to anything.
const MAX_PEERS: usize = 1_024;

/// Where members may be found: addresses, or DNS names that stand for several.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peers(Vec<Address>);

impl Peers {
    /// Parses `host:port,host:port,...`.
    ///
    /// # Errors
    /// A sentence that names the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let addresses = parts.map(|part| {
            // The same rules as for an address to listen on, but a host is needed.
            let listen = ListenAddress::parse(part)?;
            if listen.host().is_empty() {
                return Err(format!("{part:?} has no host; write host:port"));
            }
            part.parse::<Address>().map_err(|error| error.to_string())
        });
        Ok(Self(addresses.collect::<Result<_, _>>()?))
    }

    /// Whether there is anywhere to look.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Asks the peers for their state: at once while no data server is known or the
/// broker is away, else now and then.
pub(super) fn start(
    runtime: &Runtime,
    config: ClusterConfig,
    data_servers: DataServers,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    health: watch::Receiver<BusHealth>,
    commands: mpsc::Sender<Command>,
) -> Task {
    let inner = runtime.clone();
    runtime.spawn("discovery", async move {
        if config.peers.is_empty() {
            return;
        }
        let interval = config.heartbeat_interval;
        let limit = (interval / 2).min(Duration::from_secs(2));
        loop {
            ask_peers(&inner, &config.peers, &data_servers, &commands, limit).await;
            let needed = !snapshot.borrow().view.founded || !health.borrow().is_connected();
            let pause = if needed { interval / 5 } else { interval * 6 };
            let mut health = health.clone();
            tokio::select! {
                biased;
                () = inner.sleep(pause) => {}
                changed = health.wait_for(|health| !health.is_connected()), if !needed => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
            if commands.is_closed() {
                return;
            }
        }
    })
}

async fn ask_peers(
    runtime: &Runtime,
    peers: &Peers,
    data_servers: &DataServers,
    commands: &mpsc::Sender<Command>,
    limit: Duration,
) {
    let mut addresses: Vec<Address> = Vec::new();
    for peer in &peers.0 {
        match runtime.timeout(limit, runtime.resolve(peer.as_str())).await {
            Ok(Ok(found)) => {
                addresses.extend(found.iter().filter_map(|address| address.parse().ok()));
            }
            Ok(Err(error)) => debug!(%peer, %error, "a peer's name does not resolve"),
            Err(elapsed) => debug!(%peer, %elapsed, "a peer's name does not resolve"),
        }
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(MAX_PEERS);
    let asked = addresses.iter().map(|address| async move {
        match data_servers.state(address, limit).await {
            Ok(report) => {
                let _ = commands.send(Command::Report(Box::new(report))).await;
            }
            Err(error) => debug!(%address, %error, "a peer did not answer"),
        }
    });
    futures_util::future::join_all(asked).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_a_list_of_addresses() {
        let peers = Peers::parse("ds-0.ds:8080, [::1]:1 ,10.0.0.1:2,").expect("three");
        assert_eq!(peers.0.len(), 3);
        assert!(Peers::parse("").expect("none").is_empty());
        for bad in [":8080", "host", "a b:1", "host:0x"] {
            assert!(Peers::parse(bad).is_err(), "{bad}");
        }
    }
}
