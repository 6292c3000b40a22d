//! `holdfast-simulation`: runs seeds, and tells which of them fail.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use holdfast_simulation::aims::Aim;
use holdfast_simulation::executor::current;
use holdfast_simulation::many::run_many;
use holdfast_simulation::run::run;
use lexopt::{Arg, Parser, ValueExt};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

const USAGE: &str = "usage: holdfast-simulation [--seeds N] [--from N] [--threads N] [--aim NAME]\n       \
                     holdfast-simulation --seed N [--trace] [--twice]\n\n\
                     RUST_LOG says what the services log, with the time of the run.\n";

struct Options {
    seeds: u64,
    from: u64,
    threads: usize,
    seed: Option<u64>,
    aim: Option<Aim>,
    is_traced: bool,
    is_repeated: bool,
}

fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Options, lexopt::Error> {
    let mut options = Options {
        seeds: 100,
        from: 1,
        threads: 2,
        seed: None,
        aim: None,
        is_traced: false,
        is_repeated: false,
    };
    let mut parser = Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("seeds") => options.seeds = parser.value()?.parse()?,
            Arg::Long("from") => options.from = parser.value()?.parse()?,
            Arg::Long("threads") => options.threads = parser.value()?.parse()?,
            Arg::Long("seed") => options.seed = Some(parser.value()?.parse()?),
            Arg::Long("aim") => options.aim = Some(aim(&parser.value()?.string()?)?),
            Arg::Long("trace") => options.is_traced = true,
            Arg::Long("twice") => options.is_repeated = true,
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(options)
}

fn aim(name: &str) -> Result<Aim, String> {
    let found = Aim::ALL.into_iter().find(|aim| aim.as_str() == name);
    let all = Aim::ALL.map(Aim::as_str).join(", ");
    found.ok_or_else(|| format!("there is no aim {name:?}; there are {all}"))
}

fn say(text: &str) {
    // A closed standard output is nobody's fault.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Time of the run and process, in front of what is logged.
struct VirtualTime;

impl FormatTime for VirtualTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        let (process, now) = current();
        write!(writer, "{:>11.6} [{}]", now.as_secs_f64(), process.0)
    }
}

fn log() {
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_timer(VirtualTime)
            .with_ansi(false)
            .with_writer(std::io::stderr)
            .init();
    }
}

fn main() -> ExitCode {
    let options = match parse(std::env::args_os().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            say(&format!("holdfast-simulation: {error}\n{USAGE}"));
            return ExitCode::from(64);
        }
    };
    log();
    let has_failed = match options.seed {
        Some(seed) => run_one(seed, &options),
        None => run_all(&options),
    };
    if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn run_one(seed: u64, options: &Options) -> bool {
    let report = run(seed, options.is_traced);
    say(&report.to_string());
    let mut has_failed = !report.violations.is_empty();
    if options.is_repeated {
        let again = run(seed, false);
        if again != report {
            say(&format!("the second run was another one: {again}"));
            has_failed = true;
        }
    }
    has_failed
}

fn run_all(options: &Options) -> bool {
    let tell = |report: &holdfast_simulation::run::Report| {
        if !report.violations.is_empty() {
            let seed = report.seed;
            say(&format!("{report}\n  again with: --seed {seed} --trace"));
        }
    };
    let all = options.from..options.from.saturating_add(options.seeds);
    let wanted = |seed: &u64| options.aim.is_none() || Aim::of(*seed) == options.aim;
    let chosen: Vec<u64> = all.filter(wanted).collect();
    let failed = run_many(&chosen, options.threads, tell);
    let mut seeds: Vec<u64> = failed.iter().map(|report| report.seed).collect();
    seeds.sort_unstable();
    say(&format!("{} seeds, {} failed: {seeds:?}", chosen.len(), seeds.len()));
    !seeds.is_empty()
}
