//! How many copies of each object there are to be. An api needs none of it: the
//! roster says what holds, and data servers what is wanted.

use holdfast_core::policy::{MAX_REPLICAS, Wanted};
use holdfast_core::settings::{NO_DEFAULT, SettingsReader, Variable, parse_count};
use serde::Deserialize;

/// The variables as they are written.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct RawCopies {
    replicas: Option<String>,
    write_quorum: Option<String>,
}

/// The same, as help shows them.
pub(super) static TABLE: [Variable; 2] = [
    Variable::new("REPLICAS", "1", "copies of each object"),
    Variable::new(
        "WRITE_QUORUM",
        NO_DEFAULT,
        "copies that a write makes before it is acknowledged; else more than half",
    ),
];

/// Understands the variables; what is wrong is noted in `reader`.
pub(super) fn read(raw: &RawCopies, reader: &mut SettingsReader) -> Wanted {
    let count = |text: &str| {
        let count = parse_count(text, 1, MAX_REPLICAS as usize)?;
        Ok(u32::try_from(count).unwrap_or(MAX_REPLICAS))
    };
    let mut understood = true;
    let replicas = reader.read("REPLICAS", raw.replicas.as_deref(), 1, |text| {
        count(text).inspect_err(|_: &String| understood = false)
    });
    let quorum = raw.write_quorum.as_deref();
    let quorum = reader.read("WRITE_QUORUM", quorum, None, |text| count(text).map(Some));
    Wanted::new(replicas, quorum).unwrap_or_else(|error| {
        // Of how many there are to be, nothing is known if that is wrong, too.
        reader.require(!understood, "WRITE_QUORUM", error.to_string());
        Wanted::copies(replicas)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_of(replicas: &str, write_quorum: &str) -> Result<Wanted, Vec<(&'static str, String)>> {
        let text = |text: &str| Some(text.to_owned());
        let raw = RawCopies { replicas: text(replicas), write_quorum: text(write_quorum) };
        let mut reader = SettingsReader::default();
        let wanted = read(&raw, &mut reader);
        let said = |bad: holdfast_core::settings::BadSettings| {
            bad.0.into_iter().map(|bad| (bad.variable, bad.reason)).collect()
        };
        reader.finish(wanted).map_err(said)
    }

    #[test]
    fn more_than_half_of_the_copies_unless_more_are_asked_for() {
        assert_eq!(read_of("", ""), Ok(Wanted::copies(1)));
        assert_eq!(read_of("5", "").map(Wanted::write_quorum), Ok(3));
        assert_eq!(read_of("5", "4").map(Wanted::write_quorum), Ok(4));
    }

    #[test]
    fn a_quorum_without_sense_is_refused_with_the_reason() {
        for (replicas, quorum, why) in [
            ("3", "1", "1 is less than 2, more than half of 3 copies"),
            ("3", "4", "4 is more than the number of copies, 3"),
            ("", "2", "2 is more than the number of copies, 1"),
            ("3", "6", "not a whole number from 1 to 5"),
            ("3", "most", "not a whole number from 1 to 5"),
        ] {
            let bad = read_of(replicas, quorum).expect_err(why);
            let [(variable, reason)] = bad.as_slice() else { panic!("{bad:?}") };
            assert_eq!(*variable, "WRITE_QUORUM");
            assert!(reason.contains(why), "{reason}");
        }
        let bad = read_of("6", "5").expect_err("there are no six copies");
        assert_eq!(bad.iter().map(|bad| bad.0).collect::<Vec<_>>(), ["REPLICAS"]);
    }
}
