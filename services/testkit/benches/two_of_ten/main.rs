//! Two of ten data servers die at once: which requests fail, and for how long.
//!
//! ```sh
//! cargo bench -p holdfast-testkit --bench two_of_ten         # 3 rounds, about 5 minutes
//! cargo bench -p holdfast-testkit --bench two_of_ten -- 1    # 1 round
//! ```
//!
//! It needs RabbitMQ installed: it starts a broker of its own, ten data servers
//! with three copies of each object and two apis as release processes, kills two
//! data servers under load, starts them again, and leaves neither a process nor a
//! file behind. Every write is durable on two data servers before it is answered.
//! Not part of continuous integration.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "it starts real processes, measures real time and prints a table"
)]

#[path = "../common/load.rs"]
mod load;
#[path = "../common/rounds.rs"]
mod rounds;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use holdfast_testkit::cluster::{Options, ProcessCluster};

use crate::load::{Asked, Load, Request};

const ROUNDS: usize = 3;

/// How long the two are away.
const AWAY: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    // It has no goals: the set of names that are refused is what is measured.
    let measure = async |rounds| {
        measure(rounds).await;
        true
    };
    rounds::run(ROUNDS, measure)
}

async fn measure(rounds: usize) {
    let env = vec![("REPLICAS", "3".to_owned()), ("REPAIR_DELAY", "1h".to_owned())];
    let options = Options { data_servers: 10, apis: 2, env, ..Options::default() };
    let mut cluster = ProcessCluster::start(options).await;
    load::store(&cluster).await;
    println!(
        "           names that both vote for   other names: failed   not served     absent and"
    );
    println!("           of all   refused  back     of requests           at most for    proven");
    for round in 0..rounds {
        load::voters_answer(&cluster).await;
        let victims = [(2 * round) % 10, (2 * round + 1) % 10];
        let load = Load::start(&cluster);
        tokio::time::sleep(Duration::from_secs(3)).await;
        let killed = Instant::now();
        for victim in victims {
            cluster.data_servers[victim].kill().await;
        }
        tokio::time::sleep(AWAY).await;
        let restarted = Instant::now();
        for victim in victims {
            cluster.data_servers[victim].restart().await;
        }
        cluster.ready().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let requests = load.stop().await;
        report(round, &requests, killed, restarted);
    }
}

fn report(round: usize, requests: &[Request], killed: Instant, restarted: Instant) {
    // By then the silence is noticed.
    let noticed = killed + AWAY / 2;
    let of_objects = |request: &&Request| request.asked != Asked::Absent;
    // Names of which something was refused once the silence was known, and the
    // others of which something was asked then.
    let known = |served: bool| -> BTreeSet<usize> {
        requests
            .iter()
            .filter(of_objects)
            .filter(|request| request.began > noticed && request.ended < restarted)
            .filter(|request| request.served == served)
            .map(|request| request.name)
            .collect()
    };
    let refused = known(false);
    let served: BTreeSet<usize> = known(true).difference(&refused).copied().collect();
    let away = |request: &&Request| request.ended > killed && request.began < restarted;
    let of_both: Vec<&Request> = requests
        .iter()
        .filter(of_objects)
        .filter(|request| refused.contains(&request.name) && request.began > noticed)
        .filter(away)
        .collect();
    let of_both_refused = of_both.iter().filter(|request| !request.served).count();
    let back = requests
        .iter()
        .filter(of_objects)
        .filter(|request| refused.contains(&request.name) && request.began > restarted)
        .filter(|request| !request.served)
        .map(|request| request.ended - restarted)
        .max()
        .unwrap_or_default();
    let others: Vec<&Request> = requests
        .iter()
        .filter(of_objects)
        .filter(|request| served.contains(&request.name))
        .filter(away)
        .collect();
    let failed = others.iter().filter(|request| !request.served).count();
    // From the kill to the end of the last request of another name that failed, or
    // was waited for.
    let longest = others
        .iter()
        .filter(|request| !request.served)
        .map(|request| request.ended - killed)
        .chain(others.iter().map(|request| request.took()))
        .max()
        .unwrap_or_default();
    let absent = requests
        .iter()
        .filter(|request| request.asked == Asked::Absent)
        .filter(|request| request.began > noticed && request.ended < restarted);
    let (absent, proven) =
        (absent.clone().count(), absent.filter(|request| request.served).count());
    let percent = |part: usize, of: usize| 100.0 * part as f64 / of.max(1) as f64;
    println!(
        "round {:<4} {:>5.1} %   {:>5.1} %   {:>4.1} s   {failed:>4} of {:<14} {:>5.2} s        {:>5.1} %",
        round + 1,
        percent(refused.len(), refused.len() + served.len()),
        percent(of_both_refused, of_both.len()),
        back.as_secs_f64(),
        others.len(),
        longest.as_secs_f64(),
        percent(proven, absent),
    );
}
