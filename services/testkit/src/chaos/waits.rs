//! How long clients were without an answer.

use std::collections::BTreeMap;
use std::time::Duration;

use super::faults::Over;
use super::kind::Kind;
use super::report::Seen;

/// For each kind of fault, the longest time between two answers of one client that
/// touches one of it. `successes` are the client and the time of each answer.
pub(super) fn longest(successes: &[(usize, Duration)], over: &[Over]) -> BTreeMap<Kind, Seen> {
    let mut by_client: BTreeMap<usize, Vec<Duration>> = BTreeMap::new();
    for (client, at) in successes {
        by_client.entry(*client).or_default().push(*at);
    }
    let mut faults: BTreeMap<Kind, Seen> = BTreeMap::new();
    for fault in over {
        faults.entry(fault.kind).or_default().count += 1;
    }
    for times in by_client.values_mut() {
        times.sort_unstable();
        for pair in times.windows(2) {
            let [from, to] = pair else { continue };
            let touched: Vec<&Over> =
                over.iter().filter(|fault| *to > fault.start && *from < fault.end).collect();
            for fault in &touched {
                let seen = faults.entry(fault.kind).or_default();
                seen.longest = seen.longest.max(*to - *from);
                if touched.len() == 1 {
                    seen.longest_alone = seen.longest_alone.max(*to - *from);
                }
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_belongs_to_all_that_was_broken_meanwhile() {
        let second = Duration::from_secs;
        let over = |kind, start, end| Over { kind, start: second(start), end: second(end) };
        let over = [over(Kind::Kill, 2, 3), over(Kind::Fill, 1, 20), over(Kind::Fill, 30, 31)];
        let successes = [0, 1, 5, 7, 28, 32].map(|at| (0, second(at)));
        let others = [0, 6, 7].map(|at| (1, second(at)));
        let seen = longest(&[&successes[..], &others[..]].concat(), &over);
        let of = |kind| {
            let Seen { count, longest, longest_alone } = seen[&kind];
            (count, longest.as_secs(), longest_alone.as_secs())
        };
        assert_eq!(of(Kind::Kill), (1, 6, 0));
        assert_eq!(of(Kind::Fill), (2, 21, 21));
        assert_eq!(seen.len(), 2);
    }
}
