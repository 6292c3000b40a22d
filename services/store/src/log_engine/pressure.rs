//! How much garbage there is, and what that means: how fast compaction runs,
//! which segment is next, and how much of the clients' writes one batch takes.

use std::collections::BTreeSet;

use super::ledger::Ledger;
use super::queue::Allowance;

/// Full pressure, in thousandths.
const FULL: u64 = 1000;

/// From here on compaction runs as fast as the disk lets it.
const UNBOUND: u64 = 500;

/// Most that clients may have saved up for one batch.
const MAX_BUDGET_BYTES: u64 = 8 * 1024 * 1024;

/// What clients may write for each byte that compaction moves, when pressure
/// has just begun; it sinks to nothing at full pressure.
const BYTES_PER_MOVED_BYTE: u64 = 4;

/// Part of a segment, in thousandths, below which it is written again: half of
/// it while there is room, and nearly all of it when the disk is almost full and
/// every bit counts.
const IN_USE_WITH_ROOM: u64 = 500;
const IN_USE_WITHOUT: u64 = 900;

/// Small segments that may lie about before they are put together. Each start
/// of a process leaves one.
const SMALL_SEGMENTS: usize = 8;

/// Part of the log, as its divisor, that forgets may take. They are needed while
/// a segment is there that is older, so then the oldest is written again,
/// however much of it is in use. Each byte of forgets costs about as many bytes
/// as this number.
const FORGETS_DIVISOR: u64 = 8;

/// How much garbage the log holds, and what clients may still write.
///
/// With `u` bytes of records in use, pressure begins when the log is longer than
/// 2 `u` and a segment, which compaction of everything under half in use gets
/// below, and is full at 2.4 `u` and one and a half segments. Then clients wait
/// for compaction, so the log never grows beyond that by more than a batch.
///
/// Forgets count as in use only as far as the log may hold them for good. Those
/// beyond that are garbage that compaction is late with: if they raised the
/// bound, the log would grow by more than twice their length while it is.
///
/// Garbage in segments that cannot be given back does not count: to make clients
/// wait for others would not bring it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pressure {
    segment_bytes: u64,
    thousandths: u64,
    budget_bytes: u64,
    is_reclaiming: bool,
    stuck_bytes: u64,
}

impl Pressure {
    pub(super) fn new(segment_bytes: u64) -> Self {
        // What there is to do, compaction finds out first.
        let is_reclaiming = false;
        Self { segment_bytes, thousandths: 0, budget_bytes: 0, is_reclaiming, stuck_bytes: 0 }
    }

    pub(super) fn thousandths(self) -> u64 {
        self.thousandths
    }

    /// Whether compaction finds something to do. While it does not, waiting for
    /// it would be waiting for ever.
    pub(super) fn set_reclaiming(&mut self, is_reclaiming: bool) {
        self.is_reclaiming = is_reclaiming;
    }

    /// Garbage of segments that cannot be given back now.
    pub(super) fn set_stuck_bytes(&mut self, stuck_bytes: u64) {
        self.stuck_bytes = stuck_bytes;
    }

    /// A batch was written: what compaction moved in it, and what was freed.
    pub(super) fn on_batch(&mut self, ledger: &Ledger, written: Written) {
        let (total, used) = ledger.log_bytes();
        let total = total.saturating_sub(self.stuck_bytes);
        let used = used.min(ledger.live_bytes() + total / FORGETS_DIVISOR);
        let soft = 2 * used + self.segment_bytes;
        let span = (used * 2 / 5 + self.segment_bytes / 2).max(1);
        self.thousandths = (total.saturating_sub(soft).saturating_mul(FULL) / span).min(FULL);
        let share = FULL - self.thousandths;
        let earned = written.moved_bytes.saturating_mul(BYTES_PER_MOVED_BYTE) * share / FULL
            + written.freed_bytes / 2;
        self.budget_bytes = self.budget_bytes.saturating_add(earned).min(MAX_BUDGET_BYTES);
    }

    /// Clients' writes were taken.
    pub(super) fn on_taken(&mut self, bytes: u64) {
        self.budget_bytes = self.budget_bytes.saturating_sub(bytes);
    }

    /// How much of the clients' writes the next batch takes.
    pub(super) fn allowance(self) -> Allowance {
        if self.thousandths == 0 || !self.is_reclaiming {
            return Allowance::Unlimited;
        }
        Allowance::Bytes(usize::try_from(self.budget_bytes).unwrap_or(usize::MAX))
    }
}

/// What a batch wrote, in bytes of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Written {
    pub(super) moved_bytes: u64,
    /// Length of segments that are gone.
    pub(super) freed_bytes: u64,
}

/// Bytes a second that compaction may read; `None` when nothing holds it back.
pub(super) fn rate(base_bytes: u64, thousandths: u64) -> Option<u64> {
    let raised = base_bytes.saturating_mul(1 + 7 * thousandths / UNBOUND);
    (thousandths < UNBOUND).then_some(raised.max(1))
}

/// Whether the disk has room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiskRoom {
    /// Compaction need not hurry.
    Enough,
    /// Writes are refused, or will be soon.
    Scarce,
}

impl DiskRoom {
    /// Room is scarce when garbage takes more of the disk than is left of it.
    pub(super) fn of(free_bytes: u64, ledger: &Ledger, segment_bytes: u64) -> Self {
        let (total, used) = ledger.log_bytes();
        let garbage_bytes = total.saturating_sub(used);
        match free_bytes < garbage_bytes.max(2 * segment_bytes) {
            true => Self::Scarce,
            false => Self::Enough,
        }
    }

    fn most_in_use(self) -> u64 {
        match self {
            Self::Enough => IN_USE_WITH_ROOM,
            Self::Scarce => IN_USE_WITHOUT,
        }
    }
}

/// What a segment must be like to be compacted next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The one that is written to, which is left alone.
    pub(super) active: Option<u64>,
    /// Others that are.
    pub(super) stuck: &'a BTreeSet<u64>,
    pub(super) segment_bytes: u64,
    pub(super) room: DiskRoom,
    /// No more than this may be in use of it: there is room for that.
    pub(super) most_bytes: u64,
}

/// The segment that compaction should take next: the one with the smallest part
/// in use, if that is under half (or nine tenths, when the disk is full), else the
/// oldest when too many forgets wait for it to go, else one of many small ones.
/// Never the one that is written to, nor one of `stuck`.
pub(super) fn choose_victim(ledger: &Ledger, wanted: Wanted<'_>) -> Option<u64> {
    let Wanted { active, stuck, segment_bytes, room, most_bytes } = wanted;
    let mut numbers = ledger.segments().keys().copied();
    let (oldest, second) = (numbers.next()?, numbers.next());
    let used_bytes = |number: u64, usage: &super::index::SegmentUsage| {
        // What the oldest of all forgets is of no use without it.
        let others = if number == oldest { second.unwrap_or(u64::MAX) } else { oldest };
        usage.used_bytes(others)
    };
    // Also one without any record, which a crash at its first batch leaves.
    let candidates = ledger.segments().iter().filter(|(number, usage)| {
        Some(**number) != active
            && !stuck.contains(number)
            && used_bytes(**number, usage) <= most_bytes
    });
    let part_in_use = |number: u64, usage: &super::index::SegmentUsage| {
        used_bytes(number, usage).saturating_mul(FULL) / usage.total_bytes.max(1)
    };
    let best = candidates
        .clone()
        .map(|(number, usage)| (part_in_use(*number, usage), *number))
        .min()
        .filter(|(part, _)| *part < room.most_in_use());
    let outweighed = || {
        let is_candidate = candidates.clone().any(|(number, _)| *number == oldest);
        (is_candidate && has_many_forgets(ledger, segment_bytes)).then_some(oldest)
    };
    best.map(|(_, number)| number).or_else(outweighed).or_else(|| {
        let small: Vec<u64> = candidates
            .filter(|(_, usage)| usage.total_bytes < segment_bytes / 8)
            .map(|(number, _)| *number)
            .collect();
        (small.len() >= SMALL_SEGMENTS).then(|| small.first().copied()).flatten()
    })
}

fn has_many_forgets(ledger: &Ledger, segment_bytes: u64) -> bool {
    let (total, used) = ledger.log_bytes();
    used.saturating_sub(ledger.live_bytes()) > (total / FORGETS_DIVISOR).max(segment_bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{DiskRoom, Pressure, Wanted, Written, choose_victim};
    use crate::log_engine::index::{Checkpoint, SegmentUsage};
    use crate::log_engine::ledger::Ledger;

    const MIB: u64 = 1024 * 1024;

    /// The pressure of a log of as many segments of 1 MiB, each with these bytes
    /// in use, when all forgets wait for the first segment.
    fn pressure(segments: u64, live_bytes: u64, forget_bytes: u64) -> u64 {
        pressure_beside(segments, live_bytes, forget_bytes, 0)
    }

    /// The same with so much garbage that cannot be given back.
    fn pressure_beside(segments: u64, live_bytes: u64, forget_bytes: u64, stuck: u64) -> u64 {
        let usage =
            SegmentUsage { total_bytes: MIB, live_bytes, forget_bytes: [(0, forget_bytes)].into() };
        let segments = (0..segments).map(|number| (number, usage.clone())).collect();
        let ledger = Ledger::new(Checkpoint::default(), segments);
        let mut pressure = Pressure::new(MIB);
        pressure.set_stuck_bytes(stuck);
        pressure.on_batch(&ledger, Written::default());
        pressure.thousandths()
    }

    #[test]
    fn a_segment_that_does_not_fit_while_it_is_written_again_is_left_alone() {
        let usage =
            |live_bytes| SegmentUsage { total_bytes: MIB, live_bytes, ..Default::default() };
        let segments = [(1, usage(MIB / 4)), (2, usage(MIB / 8)), (3, usage(MIB / 2))].into();
        let ledger = Ledger::new(Checkpoint::default(), segments);
        let stuck = [3].into();
        let chosen = |stuck: &BTreeSet<u64>, most_bytes| {
            let (segment_bytes, room) = (MIB, DiskRoom::Scarce);
            choose_victim(&ledger, Wanted { active: None, stuck, segment_bytes, room, most_bytes })
        };
        assert_eq!(chosen(&stuck, MIB), Some(2), "the one with the least in use");
        assert_eq!(chosen(&stuck, MIB / 8), Some(2), "there is just enough room");
        assert_eq!(chosen(&stuck, MIB / 8 - 1), None);
        assert_eq!(chosen(&[2].into(), MIB / 8), None, "the others are larger");
    }

    #[test]
    fn a_log_of_live_records_is_not_under_pressure() {
        assert_eq!(pressure(20, MIB, 0), 0);
        assert_eq!(pressure(20, MIB / 2, 0), 0);
        assert_eq!(pressure(20, MIB / 3, 0), 1000);
    }

    #[test]
    fn garbage_that_cannot_be_given_back_is_no_pressure() {
        assert_eq!(pressure(20, MIB / 4, 0), 1000);
        assert_eq!(pressure_beside(20, MIB / 4, 0, 10 * MIB), 0);
    }

    #[test]
    fn a_share_of_forgets_is_in_use_and_more_is_garbage() {
        assert_eq!(pressure(20, MIB * 3 / 8, MIB / 8), 0);
        assert_eq!(pressure(20, MIB / 8, MIB * 7 / 8), 1000);
        assert_eq!(pressure(20, 0, MIB), 1000);
    }
}
