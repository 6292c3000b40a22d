//! Quantities as Kubernetes writes them.

use std::cmp::Ordering;
use std::fmt;

/// Kubernetes rounds up to this: a billionth.
const NANOS: u128 = 1_000_000_000;

/// A quantity of bytes. Two are equal when they mean the same, however they are
/// written: `1Gi` is `1024Mi`.
#[derive(Debug, Clone)]
pub struct Quantity {
    text: String,
    nanos: u128,
}

impl Quantity {
    /// Reads `20Gi`, `1.5Ti`, `500M`, `1e9` or plain bytes, as
    /// `k8s.io/apimachinery/pkg/api/resource` does, but for negative ones.
    ///
    /// # Errors
    /// A sentence that names the accepted form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:?} is not a quantity of bytes such as 20Gi");
        let unsigned = text.strip_prefix('+').unwrap_or(text);
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, suffix) = unsigned.split_at(end.unwrap_or(unsigned.len()));
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() == 0 || fraction.contains('.') {
            return Err(refused());
        }
        let fraction = fraction.trim_end_matches('0');
        let digits = format!("0{whole}{fraction}").parse().map_err(|_| refused())?;
        let Scale { twos, tens } = Scale::of(suffix).ok_or_else(refused)?;
        let decimals = i32::try_from(fraction.len()).map_err(|_| refused())?;
        let nanos = scaled(digits, twos, tens - decimals);
        let nanos = nanos.ok_or_else(|| format!("{text:?} is more than can be counted"))?;
        Ok(Self { text: text.to_owned(), nanos })
    }
}

/// `digits * 2^twos * 10^tens` in billionths, rounded up.
fn scaled(digits: u128, twos: u32, tens: i32) -> Option<u128> {
    if digits == 0 {
        return Some(0);
    }
    let scaled = digits.checked_mul(NANOS)?.checked_mul(1_u128.checked_shl(twos)?)?;
    let power = 10_u128.checked_pow(tens.unsigned_abs());
    if tens >= 0 {
        return scaled.checked_mul(power?);
    }
    // Less than any billionth, but not nothing.
    Some(power.map_or(1, |power| scaled.div_ceil(power)))
}

/// What a suffix multiplies by: `2^twos * 10^tens`.
struct Scale {
    twos: u32,
    tens: i32,
}

impl Scale {
    fn of(suffix: &str) -> Option<Self> {
        let decimal = |tens| Some(Self { twos: 0, tens });
        match suffix {
            "" => decimal(0),
            "n" => decimal(-9),
            "u" => decimal(-6),
            "m" => decimal(-3),
            "k" => decimal(3),
            "M" => decimal(6),
            "G" => decimal(9),
            "T" => decimal(12),
            "P" => decimal(15),
            "E" => decimal(18),
            _ => match suffix.strip_suffix('i') {
                Some(unit) => {
                    let place = ["K", "M", "G", "T", "P", "E"].iter().position(|u| *u == unit)?;
                    Some(Self { twos: 10 * (u32::try_from(place).ok()? + 1), tens: 0 })
                }
                None => {
                    let exponent = suffix.strip_prefix(['e', 'E'])?;
                    decimal(exponent.parse::<i16>().ok()?.into())
                }
            },
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'de> serde::Deserialize<'de> for Quantity {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(text: &str) -> Quantity {
        Quantity::parse(text).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn quantities_are_compared_by_what_they_mean() {
        for (one, other) in [
            ("1Gi", "1024Mi"),
            ("1Gi", "1073741824"),
            ("1.5Gi", "1536Mi"),
            ("1.50Ti", "1536Gi"),
            (".5Ki", "512"),
            ("1.", "1"),
            ("20G", "20e9"),
            ("20G", "2E10"),
            ("20G", "20000000000000m"),
            ("1E", "1000P"),
            ("1E3", "1k"),
            ("1e-3", "1m"),
            ("+5Gi", "5Gi"),
            ("1000000n", "1m"),
            ("1u", "1000n"),
            ("0", "0.0Ei"),
            ("0.1n", "1n"),
            ("1e-40", "1n"),
            ("8Ei", "8192Pi"),
        ] {
            assert_eq!(quantity(one), quantity(other), "{one} {other}");
        }
        for (less, more) in [
            ("20G", "20Gi"),
            ("1023Mi", "1Gi"),
            ("1073741823", "1Gi"),
            ("1Gi", "1073741824001m"),
            ("999T", "1P"),
            ("1P", "1Pi"),
            ("9E", "8Ei"),
        ] {
            assert!(quantity(less) < quantity(more), "{less} {more}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in [
            "", "Gi", ".", "-1Gi", "1.2.3", "1GB", "1gi", "1K", "1 Gi", " 1Gi", "1Gi ", "1e",
            "1e+", "0x10", "1_000", "ä", "1ki", "1Ei3", "--1",
        ] {
            assert!(Quantity::parse(text).is_err(), "{text:?}");
        }
        for text in ["1e40", "99999999999999999999Ei", "340282366920938463463374607431768211456"] {
            assert!(Quantity::parse(text).is_err(), "{text:?}");
        }
    }
}
