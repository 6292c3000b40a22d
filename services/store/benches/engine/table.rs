//! What was measured, as medians over the rounds.

use crate::load::median;

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// In the unit of its row.
    pub(crate) value: f64,
    /// The median latency in seconds, where there is one.
    pub(crate) p50: Option<f64>,
}

impl Sample {
    pub(crate) fn of(value: f64) -> Self {
        Self { value, p50: None }
    }
}

/// What a row counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Objects a second.
    Objects,
    /// Bytes a second.
    Throughput,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Objects => format!("{}/s", thousands(value)),
            Self::Throughput => format!("{} MB/s", thousands(value / 1e6)),
            Self::Seconds => format!("{:.2} µs", value * 1e6),
            Self::Bytes => format!("{} MB", thousands(value / 1e6)),
        }
    }
}

/// What is asked of the median ratio.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    /// Not less.
    AtLeast(f64),
    /// Not more.
    AtMost(f64),
    /// Nothing: the row is there for information.
    Nothing,
}

impl Goal {
    fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(least) => ratio >= least,
            Self::AtMost(most) => ratio <= most,
            Self::Nothing => true,
        }
    }

    fn verdict(self, ratio: f64) -> String {
        let verdict = if self.is_met(ratio) { "PASS" } else { "FAIL" };
        match self {
            Self::AtLeast(least) => format!("{verdict} (>= {least:.2})"),
            Self::AtMost(most) => format!("{verdict} (<= {most:.2})"),
            Self::Nothing => "for information".to_owned(),
        }
    }
}

/// What a row says beside its numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Title {
    /// What is done.
    pub(crate) what: String,
    /// What it is compared with.
    pub(crate) against: String,
    /// When an answer comes.
    pub(crate) durability: &'static str,
    pub(crate) unit: Unit,
    pub(crate) goal: Goal,
}

/// One comparison, with a pair of samples for each round: the engine first.
struct Row {
    title: Title,
    pairs: Vec<(Sample, Sample)>,
}

impl Row {
    fn ratios(&self) -> Vec<f64> {
        self.pairs.iter().map(|(own, other)| own.value / other.value).collect()
    }

    fn passes(&self) -> bool {
        self.title.goal.is_met(median(self.ratios()))
    }

    fn print(&self) {
        let Title { what, against, durability, unit, goal } = &self.title;
        let (own, other): (Vec<_>, Vec<_>) = self.pairs.iter().copied().unzip();
        let ratios = self.ratios();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        let ratio = median(ratios);
        println!(
            "| {what} | {} | {against} | {} | {ratio:.2} | {least:.2}..{most:.2} | {} | \
             {durability} |",
            describe(&own, *unit),
            describe(&other, *unit),
            goal.verdict(ratio),
        );
    }
}

/// Everything that was measured.
pub(crate) struct Table {
    rounds: usize,
    rows: Vec<Row>,
}

impl Table {
    pub(crate) fn new(rounds: usize) -> Self {
        Self { rounds, rows: Vec::new() }
    }

    /// One round of a comparison: what the engine took, and what the other did.
    pub(crate) fn add(&mut self, title: Title, own: Sample, other: Sample) {
        match self.rows.iter_mut().find(|row| row.title == title) {
            Some(row) => row.pairs.push((own, other)),
            None => self.rows.push(Row { title, pairs: vec![(own, other)] }),
        }
    }

    /// Prints everything; gives whether every target is met.
    pub(crate) fn print(&self) -> bool {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        println!("\n{cores} cores, {} rounds (amplification: one run).", self.rounds);
        println!("Medians of the rounds; a ratio is taken within a round.\n");
        println!(
            "| what | log engine | against | that | ratio | least..most | target | durability |"
        );
        println!("|---|---|---|---|---|---|---|---|");
        self.rows.iter().for_each(Row::print);
        self.rows.iter().all(Row::passes)
    }
}

fn describe(samples: &[Sample], unit: Unit) -> String {
    let value = unit.show(median(samples.iter().map(|sample| sample.value).collect()));
    let times: Vec<_> = samples.iter().filter_map(|sample| sample.p50).collect();
    if times.is_empty() {
        return value;
    }
    format!("{value}, p50 {:.2} ms", median(times) * 1e3)
}

fn thousands(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.1}");
    }
    let text = format!("{value:.0}");
    let digits = text.char_indices().map(|(at, digit)| {
        let separator = if at > 0 && (text.len() - at) % 3 == 0 { "," } else { "" };
        format!("{separator}{digit}")
    });
    digits.collect()
}
