//! The cluster of a run, and what of it can be broken.

use std::path::PathBuf;

use serde_json::Value;

use super::kind::Kind;
use crate::client;
use crate::clock::Clocks;
use crate::cluster::{Options, ProcessCluster};
use crate::disk::Disk;
use crate::process::Service;
use crate::proxy::Proxy;

/// A disk of a data server: one that its share of an hour's load does not fill.
const DISK_BYTES: u64 = 1 << 30;

/// `RESERVE_BYTES` on such a disk.
pub(super) const RESERVE_BYTES: u64 = 64 << 20;

/// The cluster, and beside each data server what it depends on.
#[derive(Debug)]
pub(super) struct Stage {
    /// Dropped before the disks that its processes use.
    pub cluster: ProcessCluster,
    /// At the place of its data server.
    pub sites: Vec<Site>,
    /// The way to wrong clocks, or why there is none.
    pub clocks: Result<Clocks, String>,
    /// Why no data server has a disk of its own, if so.
    pub no_disks: Option<String>,
}

/// What a data server depends on.
#[derive(Debug)]
pub(super) struct Site {
    /// The way to it.
    pub link: Proxy,
    /// Its way to the broker.
    pub to_broker: Proxy,
    /// Its disk, if it has one of its own.
    pub disk: Option<Disk>,
}

impl Site {
    /// Cuts the way to it and its way to the broker, or mends them. Its own requests
    /// to other data servers pass: their links do not know who asks.
    pub(super) fn set_cut(&self, cut: bool) {
        self.link.set_cut(cut);
        self.to_broker.set_cut(cut);
    }
}

impl Stage {
    /// Starts everything and waits until it is ready.
    pub(super) async fn start(options: Options) -> Self {
        let cluster = ProcessCluster::prepare(options).await;
        let mut stage = Self { cluster, sites: Vec::new(), clocks: Clocks::find(), no_disks: None };
        for mut server in std::mem::take(&mut stage.cluster.data_servers) {
            let site = stage.settle(&mut server).await;
            stage.sites.push(site);
            stage.cluster.data_servers.push(server);
        }
        stage.cluster.launch();
        stage.cluster.ready().await;
        stage
    }

    /// What cannot be broken here, and why.
    pub(super) fn left_out(&self) -> Vec<(Kind, String)> {
        let disks = self.no_disks.clone().map(|reason| (Kind::Fill, reason));
        let clocks = self.clocks.clone().err().map(|reason| (Kind::Skew, reason));
        disks.into_iter().chain(clocks).collect()
    }

    /// Everything that any service has logged, those that were removed too.
    pub(super) fn logs(&self) -> String {
        let files = std::fs::read_dir(self.cluster.directory()).into_iter().flatten().flatten();
        let logs =
            files.map(|file| file.path()).filter(|path| path.extension() == Some("log".as_ref()));
        logs.filter_map(|log| std::fs::read_to_string(log).ok()).collect()
    }

    /// One data server more; it joins by itself.
    pub(super) async fn add_data_server(&mut self) {
        let mut server = self.cluster.new_data_server();
        let site = self.settle(&mut server).await;
        server.start();
        self.sites.push(site);
        self.cluster.data_servers.push(server);
    }

    /// Ends a data server that is no member any more.
    pub(super) async fn remove_data_server(&mut self, place: usize) {
        self.cluster.data_servers.remove(place).stop().await;
        self.sites.remove(place);
    }

    /// Gives a new data server its links and, if that is possible, its disk.
    async fn settle(&mut self, server: &mut Service) -> Site {
        let (broker, url) = (self.cluster.broker.address().to_string(), self.cluster.broker.url());
        let link = Proxy::start(server.address().to_owned()).await;
        server.set("ADVERTISE_ADDRESS", link.address());
        let to_broker = Proxy::start(broker.clone()).await;
        server.set("RABBITMQ_SERVER", url.replace(&broker, to_broker.address()));
        let disk = self.disk(server);
        Site { link, to_broker, disk }
    }

    /// All have one, or none: weights are sizes of disks.
    fn disk(&mut self, server: &mut Service) -> Option<Disk> {
        if self.no_disks.is_some() {
            return None;
        }
        match Disk::mount(self.cluster.directory(), server.name(), DISK_BYTES) {
            Ok(disk) => {
                server.set("STORAGE_ROOT", disk.root().display().to_string());
                server.set("RESERVE_BYTES", RESERVE_BYTES.to_string());
                Some(disk)
            }
            Err(reason) => {
                assert!(self.sites.is_empty(), "only some disks can be mounted: {reason}");
                self.no_disks = Some(reason);
                None
            }
        }
    }

    /// Where a data server keeps everything.
    pub(super) fn volume(&self, place: usize) -> PathBuf {
        let root = self.cluster.data_servers[place].setting("STORAGE_ROOT");
        PathBuf::from(root.expect("every data server has one"))
    }

    /// The place of the data server of this name, while there is one.
    pub(super) fn place(&self, name: &str) -> Option<usize> {
        self.cluster.data_servers.iter().position(|server| server.name() == name)
    }

    /// Who the data server is now: an emptied disk is a new member.
    pub(super) async fn node(&self, place: usize) -> Option<String> {
        let state = state(&self.cluster.data_servers[place]).await?;
        state["node"].as_str().map(str::to_owned)
    }

    /// The place of a data server that takes data, as far as it knows; the one at
    /// `first` if possible.
    pub(super) async fn an_active_one(&self, first: usize) -> Option<usize> {
        let count = self.sites.len();
        for place in (first..count).chain(0..first) {
            let said = state(&self.cluster.data_servers[place]).await;
            if said.is_some_and(|said| said["state"] == "active") {
                return Some(place);
            }
        }
        None
    }

    /// Every data server that any api knows, retired ones too.
    pub(super) async fn members(&self) -> Vec<Value> {
        for api in &self.cluster.apis {
            if let Ok(page) = client::get(api.admin(), "/admin/dataservers").await
                && page.status == 200
            {
                return page.json()["dataservers"].as_array().cloned().unwrap_or_default();
            }
        }
        Vec::new()
    }

    /// Whether nobody is missing, and nobody comes or goes.
    pub(super) async fn is_complete(&self) -> bool {
        let members = self.members().await;
        let living = || members.iter().filter(|member| member["state"] != "retired");
        let is_here = |member: &Value| member["hearing"] == "heard" && member["state"] == "active";
        living().count() == self.cluster.data_servers.len() && living().all(is_here)
    }

    /// Whether all of `gone` have retired: others have what they had.
    pub(super) async fn are_replaced(&self, gone: &[String]) -> bool {
        let members = self.members().await;
        let has_retired = |node: &str| {
            members.iter().any(|member| member["node"] == node && member["state"] == "retired")
        };
        gone.iter().all(|node| has_retired(node))
    }
}

/// What a data server says of itself.
pub(super) async fn state(server: &Service) -> Option<Value> {
    let answer = client::get(server.address(), "/internal/v1/state").await.ok()?;
    (answer.status == 200).then(|| answer.json())
}
