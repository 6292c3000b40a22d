//! Clients that look names up one after another, and how long it took them.

use std::time::{Duration, Instant};

/// Objects that are stored before anything is measured.
pub(crate) const OBJECTS: usize = 256;

/// The name of a stored object.
pub(crate) fn stored(index: usize) -> String {
    format!("bench/object-{}", index % OBJECTS)
}

/// One client: it has at most one lookup out.
pub(crate) trait Client: Send + 'static {
    /// Whether some data server holds an object of this name.
    fn lookup(&mut self, name: &str) -> impl Future<Output = bool> + Send;
}

/// What is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// Names of stored objects.
    Stored,
    /// Names that nobody holds, none of them twice.
    Absent,
}

/// What some clients saw together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// Lookups a second.
    pub(crate) rate: f64,
    /// The median time of a lookup, in seconds.
    pub(crate) p50: f64,
    /// Lookups with another outcome than the names have.
    pub(crate) wrong: usize,
}

/// Lets every client look up for as long as `window`, and at least once.
pub(crate) async fn run<C: Client>(clients: Vec<C>, names: Names, window: Duration) -> Sample {
    let began = Instant::now();
    let clients: Vec<_> = (0..)
        .zip(clients)
        .map(|(number, client)| tokio::spawn(drive(client, number, names, began, window)))
        .collect();
    let (mut times, mut wrong) = (Vec::new(), 0);
    for client in clients {
        let (own_times, own_wrong) = client.await.expect("a client panicked");
        times.extend(own_times);
        wrong += own_wrong;
    }
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    Sample { rate, p50: median(times), wrong }
}

async fn drive<C: Client>(
    mut client: C,
    number: usize,
    names: Names,
    began: Instant,
    window: Duration,
) -> (Vec<f64>, usize) {
    let (mut times, mut wrong) = (Vec::new(), 0);
    loop {
        let name = match names {
            Names::Stored => stored(number * 31 + times.len()),
            Names::Absent => format!("bench/absent-{number}-{}", times.len()),
        };
        let asked = Instant::now();
        let found = client.lookup(&name).await;
        times.push(asked.elapsed().as_secs_f64());
        wrong += usize::from(found != (names == Names::Stored));
        if began.elapsed() >= window {
            return (times, wrong);
        }
    }
}

/// The median; the upper one of two.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}
