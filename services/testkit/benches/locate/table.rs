//! What was measured, as medians over the rounds.

use crate::load::{Names, Sample, median};

/// By what two sides are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    /// Lookups a second: how many times as many.
    Rate,
    /// The median latency: how many times shorter.
    Latency,
}

/// One comparison, with a pair of samples for each round.
struct Row {
    title: &'static str,
    measure: Measure,
    target: Option<f64>,
    pairs: Vec<(Sample, Sample)>,
}

impl Row {
    fn ratios(&self) -> Vec<f64> {
        let ratio = |(before, after): &(Sample, Sample)| match self.measure {
            Measure::Rate => after.rate / before.rate,
            Measure::Latency => before.p50 / after.p50,
        };
        self.pairs.iter().map(ratio).collect()
    }

    fn passes(&self) -> bool {
        self.target.is_none_or(|target| median(self.ratios()) >= target)
    }

    fn print(&self) {
        let (before, after): (Vec<_>, Vec<_>) = self.pairs.iter().copied().unzip();
        let ratios = self.ratios();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        let verdict = match (self.target, self.passes()) {
            (None, _) => String::new(),
            (Some(target), true) => format!("PASS (>= {target:.0}x)"),
            (Some(target), false) => format!("FAIL (>= {target:.0}x)"),
        };
        println!(
            "{:<28}{}{}{:>9}  {:<15}{verdict}",
            self.title,
            describe(&before),
            describe(&after),
            factor(median(ratios)),
            format!("{}..{}", factor(least), factor(most)),
        );
    }
}

/// Everything that was measured.
#[derive(Default)]
pub(crate) struct Table {
    against_seed: Vec<Row>,
    transports: Vec<Row>,
    outage: Vec<(Names, Sample, Sample)>,
}

impl Table {
    /// A pair of the seed's pattern and Holdfast.
    pub(crate) fn add(
        &mut self,
        title: &'static str,
        measure: Measure,
        target: Option<f64>,
        seed: Sample,
        own: Sample,
    ) {
        add(&mut self.against_seed, title, measure, target, (seed, own));
    }

    /// A pair of batches over HTTP and over the bus.
    pub(crate) fn add_transport(&mut self, title: &'static str, http: Sample, bus: Sample) {
        add(&mut self.transports, title, Measure::Rate, None, (http, bus));
    }

    /// The locator and the api while the broker is stopped.
    pub(crate) fn add_outage(&mut self, names: Names, direct: Sample, http: Sample) {
        self.outage.push((names, direct, http));
    }

    /// Prints everything; gives whether every target is met.
    pub(crate) fn print(&self) -> bool {
        let rounds = self.against_seed.first().map_or(0, |row| row.pairs.len());
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        println!("\nThree data servers, RabbitMQ and the clients on {cores} cores of one machine.");
        println!(
            "Rounds: {rounds}. Medians of them; a ratio is taken within a round (least..most)."
        );
        head("lookups/s and p50", "seed's pattern", "Holdfast", "ratio");
        self.against_seed.iter().for_each(Row::print);
        let wrong: usize =
            self.against_seed.iter().flat_map(|row| &row.pairs).map(|(seed, _)| seed.wrong).sum();
        println!("Wrong outcomes: seed's pattern {wrong}, Holdfast 0.");
        head("Holdfast's two transports", "batches over HTTP", "batches over the bus", "ratio");
        self.transports.iter().for_each(Row::print);
        head("with the broker stopped", "locator", "HTTP", "");
        for (names, direct, http) in &self.outage {
            let title = format!("{names:?}, 64 clients").to_lowercase();
            println!("{title:<28}{}{}", describe(&[*direct]), describe(&[*http]));
        }
        self.against_seed.iter().all(Row::passes)
    }
}

fn add(
    rows: &mut Vec<Row>,
    title: &'static str,
    measure: Measure,
    target: Option<f64>,
    pair: (Sample, Sample),
) {
    match rows.iter_mut().find(|row| row.title == title) {
        Some(row) => row.pairs.push(pair),
        None => rows.push(Row { title, measure, target, pairs: vec![pair] }),
    }
}

fn head(title: &str, before: &str, after: &str, ratio: &str) {
    println!("\n{title:<28}{before:>24}{after:>24}{ratio:>9}");
}

/// Rate and p50 in 24 columns.
fn describe(samples: &[Sample]) -> String {
    let rate = median(samples.iter().map(|sample| sample.rate).collect());
    let p50 = median(samples.iter().map(|sample| sample.p50).collect());
    format!("{:>11}/s {:>7.2} ms", thousands(rate), p50 * 1_000.0)
}

fn thousands(value: f64) -> String {
    let text = format!("{value:.0}");
    match text.len().checked_sub(3) {
        Some(split) if split > 0 => {
            let (front, back) = text.split_at(split);
            format!("{front},{back}")
        }
        _ if value < 100.0 => format!("{value:.1}"),
        _ => text,
    }
}

fn factor(value: f64) -> String {
    if value < 10.0 { format!("{value:.1}x") } else { format!("{value:.0}x") }
}
