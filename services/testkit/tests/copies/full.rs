//! A data server joins while the disk of another one is full to the last byte,
//! reserve and all: it is what brings room. Needs root, to mount a disk.

use holdfast_testkit::client;
use holdfast_testkit::cluster::{Options, ProcessCluster, member};
use holdfast_testkit::disk::Disk;
use holdfast_testkit::wait;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_keeps_no_data_server_from_joining() {
    let env = vec![("REPLICAS", "2".to_owned())];
    let mut cluster = ProcessCluster::prepare(Options { env, ..Options::default() }).await;
    let disk = match Disk::mount(cluster.directory(), "full", 256 << 20) {
        Ok(disk) => disk,
        Err(reason) => {
            eprintln!("SKIPPED: no disk can be mounted here: {reason}");
            return;
        }
    };
    cluster.data_servers[0].set("STORAGE_ROOT", disk.root().display().to_string());
    cluster.data_servers[0].set("RESERVE_BYTES", "16MiB");
    cluster.launch();
    cluster.ready().await;
    let pid = cluster.data_servers[0].pid();

    disk.fill(0).expect("it is empty");
    let newcomer = cluster.new_data_server();
    cluster.data_servers.push(newcomer);
    cluster.data_servers[3].start();
    let takes_data = async |cluster: &ProcessCluster, place: usize| {
        let address = cluster.data_servers[place].address();
        member(&cluster.apis[0], address).await["takes_data"] == true
    };
    wait::until_true("the new one takes data", async || takes_data(&cluster, 3).await).await;
    for number in 0..20 {
        let path = format!("/objects/full/{number}");
        wait::until_true("a write goes where there is room", async || {
            client::put(cluster.api(0), &path, b"some").await.is_ok_and(|it| it.status == 200)
        })
        .await;
    }

    // It learns of the join, and takes data again, without a start.
    disk.relieve().expect("it is full");
    let full = &cluster.data_servers[0];
    wait::until_true("the one that was full knows all", async || {
        let roster = client::get(full.address(), "/internal/v1/roster").await;
        let known = roster.is_ok_and(|it| it.text().contains(cluster.data_servers[3].address()));
        let offered = client::request(full.address(), "POST", "/internal/v1/staging", &[], b"some");
        known && offered.await.is_ok_and(|it| it.status == 200)
    })
    .await;
    assert_eq!(cluster.data_servers[0].pid(), pid);
    assert!(cluster.data_servers[0].is_running());
}
