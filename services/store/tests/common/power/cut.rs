//! What a power cut leaves of the changes that were not synced.

use super::image::{Image, Ino};
use super::journal::{Change, Names, Pending, Replay, Standing};

/// Sectors are written whole or not at all, in bytes.
pub const SECTOR_BYTES: u64 = 512;

/// Which of the undecided changes are on disk after the cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// None of them.
    NothingUnsynced,
    /// All of them, as after the end of the process alone.
    Everything,
    /// All but one; it is lost whole.
    AllBut(usize),
    /// Some of them, some torn, as the seed says. The seed also decides whether
    /// many or few survive, or all up to one.
    Subset(u64),
}

/// What becomes of one change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Lost,
    /// Each sector for itself. Changes of names are never torn, only kept.
    Torn,
    /// The data is lost and the length is on disk, so that zeros are read.
    LengthOnly,
}

/// A small generator: the same seed gives the same cut everywhere.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// The disk as it is found after the cut.
pub fn surviving(replay: Replay, choice: Choice) -> Image {
    let undecided = replay.undecided();
    let Replay { names, durable: mut image, pending } = replay;
    let mut dice = Dice(if let Choice::Subset(seed) = choice { seed } else { 0 });
    let mut fates = fates(choice, undecided, &mut dice).into_iter();
    let mut has_lost_name = false;
    for Pending { change, standing } in &pending {
        let drawn = match standing {
            Standing::Certain => Fate::Kept,
            Standing::Unsynced | Standing::Forsaken => {
                fates.next().expect("there is one for each undecided change")
            }
        };
        let is_name = matches!(change, Change::Entry(_));
        let fate = if is_name && has_lost_name { Fate::Lost } else { drawn };
        let is_lost = matches!(fate, Fate::Lost | Fate::LengthOnly);
        has_lost_name |= names == Names::Journaled && is_name && is_lost;
        apply(change, fate, &mut image, &mut dice);
    }
    image.drop_unreachable();
    image
}

fn fates(choice: Choice, count: usize, dice: &mut Dice) -> Vec<Fate> {
    match choice {
        Choice::NothingUnsynced => vec![Fate::Lost; count],
        Choice::Everything => vec![Fate::Kept; count],
        Choice::AllBut(lost) => {
            assert!(lost < count, "of {count} changes there is no number {lost}");
            let fate = |index| if index == lost { Fate::Lost } else { Fate::Kept };
            (0..count).map(fate).collect()
        }
        Choice::Subset(_) => subset(count, dice),
    }
}

/// Each change for itself with even, good or bad chances, or all up to one.
fn subset(count: usize, dice: &mut Dice) -> Vec<Fate> {
    let style = dice.below(4);
    let first_lost = dice.below(count as u64 + 1);
    let mut fate = |index: u64| {
        let is_kept = match style {
            0 => dice.below(2) == 0,
            1 => dice.below(8) != 0,
            2 => dice.below(8) == 0,
            _ => index < first_lost,
        };
        let is_last_kept = style == 3 && index + 1 == first_lost;
        let is_torn = dice.below(4) == 0;
        match (is_kept, is_torn) {
            (true, true) if style != 3 || is_last_kept => Fate::Torn,
            (true, _) => Fate::Kept,
            (false, true) => Fate::LengthOnly,
            (false, false) => Fate::Lost,
        }
    };
    (0..count as u64).map(&mut fate).collect()
}

fn apply(change: &Change, fate: Fate, image: &mut Image, dice: &mut Dice) {
    match (fate, change) {
        (Fate::Lost, _) => {}
        (Fate::LengthOnly, Change::Write { ino, offset, bytes }) => {
            let end = offset + bytes.len() as u64;
            image.content_mut(*ino).into_iter().for_each(|file| file.grow_to(end));
        }
        (Fate::LengthOnly, _) => {}
        (Fate::Torn, Change::Write { ino, offset, bytes }) => {
            tear(*ino, *offset, bytes, image, dice);
        }
        (Fate::Kept | Fate::Torn, _) => change.apply(image),
    }
}

/// Writes some sectors of a write. The file grows as far as they go.
fn tear(ino: Ino, offset: u64, bytes: &[u8], image: &mut Image, dice: &mut Dice) {
    let Some(file) = image.content_mut(ino) else { return };
    let mut done = 0;
    while done < bytes.len() {
        let at = offset + done as u64;
        let rest = usize::try_from(SECTOR_BYTES - at % SECTOR_BYTES).expect("a sector is small");
        let end = (done + rest).min(bytes.len());
        if dice.below(2) == 0 {
            file.write(at, &bytes[done..end]);
        }
        done = end;
    }
}
