//! What is measured, and in which order.

use std::net::SocketAddr;
use std::time::Duration;

use holdfast_coordinator::locator::Locator;

use crate::cluster::Cluster;
use crate::http::Connection;
use crate::load::{Client, Names, Sample, run};
use crate::locators::Locators;
use crate::seed::Seed;
use crate::table::{Measure, Table};

const MANY: usize = 64;

/// How long the seed's pattern is measured at a time. A miss takes it a second.
const SEED_WINDOW: Duration = Duration::from_millis(2_500);
const SEED_MISS_WINDOW: Duration = Duration::from_millis(1_500);
const WINDOW: Duration = Duration::from_millis(1_500);
/// For the broker to sweep up what the seed's pattern left.
const PAUSE: Duration = Duration::from_millis(300);

/// The targets of the comparison: how many times as many lookups a second, and
/// how many times shorter a miss.
const FOUND_TARGET: f64 = 100.0;
const FOUND_HTTP_TARGET: f64 = 30.0;
const MISS_TARGET: f64 = 300.0;

/// The two sides, each directly and over HTTP.
pub(crate) struct Sides {
    seed: Seed,
    seed_http: SocketAddr,
    locators: Locators,
    api: SocketAddr,
}

impl Sides {
    pub(crate) async fn connect(cluster: &Cluster) -> Self {
        let url = cluster.broker.url();
        let seed = Seed::new(&url);
        let seed_http = seed.serve().await;
        let sides =
            Self { seed, seed_http, locators: Locators::start(&url).await, api: cluster.api };
        sides.warm_up().await;
        sides
    }

    /// The first lookups open connections and fill caches.
    async fn warm_up(&self) {
        for locator in [&self.locators.bus, &self.locators.http] {
            run(vec![locator.clone(); MANY], Names::Stored, PAUSE).await;
        }
        run(connections(self.api, MANY).await, Names::Stored, PAUSE).await;
        run(vec![self.seed.clone()], Names::Stored, PAUSE).await;
        self.seed.settle().await;
    }

    /// One round of the comparison with the seed's pattern.
    pub(crate) async fn compare_with_seed(&self, table: &mut Table) {
        let (bus, found, absent) = (&self.locators.bus, Names::Stored, Names::Absent);
        let seed = self.seed(MANY, found, SEED_WINDOW).await;
        let own = own(bus, MANY, found).await;
        table.add("found, 64 clients, locator", Measure::Rate, Some(FOUND_TARGET), seed, own);
        let seed = self.seed_http(MANY, found, SEED_WINDOW).await;
        let own = self.own_http(MANY, found).await;
        table.add("found, 64 clients, HTTP", Measure::Rate, Some(FOUND_HTTP_TARGET), seed, own);
        for (clients, direct, http) in [
            (1, "miss, 1 client, locator", "miss, 1 client, HTTP"),
            (MANY, "miss, 64 clients, locator", "miss, 64 clients, HTTP"),
        ] {
            let seed = self.seed(clients, absent, SEED_MISS_WINDOW).await;
            let own = self::own(bus, clients, absent).await;
            table.add(direct, Measure::Latency, Some(MISS_TARGET), seed, own);
            let seed = self.seed_http(clients, absent, SEED_MISS_WINDOW).await;
            let own = self.own_http(clients, absent).await;
            table.add(http, Measure::Latency, None, seed, own);
        }
    }

    /// The same batches over the broker and over HTTP, with the broker running.
    pub(crate) async fn compare_transports(&self, table: &mut Table) {
        let Locators { bus, http, .. } = &self.locators;
        for (clients, title) in [
            (1, "batches, found, 1 client"),
            (MANY, "batches, found, 64 clients"),
            (256, "batches, found, 256 clients"),
        ] {
            let over_http = own(http, clients, Names::Stored).await;
            let over_bus = own(bus, clients, Names::Stored).await;
            table.add_transport(title, over_http, over_bus);
        }
    }

    /// What is left when the broker has stopped.
    pub(crate) async fn measure_outage(mut self, table: &mut Table) {
        self.locators.wait_for_outage().await;
        tokio::time::sleep(PAUSE).await;
        for names in [Names::Stored, Names::Absent] {
            let direct = own(&self.locators.bus, MANY, names).await;
            let http = self.own_http(MANY, names).await;
            table.add_outage(names, direct, http);
        }
    }

    async fn seed(&self, clients: usize, names: Names, window: Duration) -> Sample {
        let sample = run(vec![self.seed.clone(); clients], names, window).await;
        self.settle().await;
        sample
    }

    async fn seed_http(&self, clients: usize, names: Names, window: Duration) -> Sample {
        let sample = run(connections(self.seed_http, clients).await, names, window).await;
        self.settle().await;
        sample
    }

    async fn own_http(&self, clients: usize, names: Names) -> Sample {
        correct(run(connections(self.api, clients).await, names, WINDOW).await)
    }

    async fn settle(&self) {
        self.seed.settle().await;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn own(locator: &Locator, clients: usize, names: Names) -> Sample {
    correct(run(vec![locator.clone(); clients], names, WINDOW).await)
}

/// The seed's pattern may miss an object under load, and the table says so;
/// Holdfast may not.
fn correct(sample: Sample) -> Sample {
    assert_eq!(sample.wrong, 0, "wrong outcomes");
    sample
}

async fn connections(address: SocketAddr, count: usize) -> Vec<impl Client> {
    let mut connections = Vec::new();
    for _ in 0..count {
        connections.push(Connection::open(address).await.expect("the server takes connections"));
    }
    connections
}
