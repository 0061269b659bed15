//! Durations and sizes as they are written: a whole number and a unit, nothing else. Amounts of ether may have a fraction.

use thiserror::Error;

/// Why a text is not a duration or a size.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnitError {
    /// No number in front.
    #[error("does not start with a whole number")]
    NoNumber,
    /// The number stands alone.
    #[error("has no unit")]
    NoUnit,
    /// The unit is not one of ours.
    #[error("has the unknown unit `{0}`")]
    UnknownUnit(String),
    /// More than can be represented.
    #[error("is too large")]
    TooLarge,
    /// More digits after the point than the unit has.
    #[error("has a fraction of a wei, which is the smallest amount")]
    TooFine,
}

/// The longest duration the language accepts: ten years of 365 days, in milliseconds.
pub const MAX_DURATION_MS: i64 = 3650 * 86_400_000;

const DURATIONS: [(&str, i64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZES: [(&str, i64); 7] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// Milliseconds of `"10ms"`, `"30s"`, `"5m"`, `"1h"` or `"7d"`. A day is 24 hours. At most [`MAX_DURATION_MS`].
pub fn parse_duration(text: &str) -> Result<i64, UnitError> {
    let ms = parse(text, &DURATIONS)?;
    if ms > MAX_DURATION_MS { Err(UnitError::TooLarge) } else { Ok(ms) }
}

/// Bytes of `"64KiB"`, `"1MiB"`, `"10MB"` and so on.
pub fn parse_size(text: &str) -> Result<i64, UnitError> {
    parse(text, &SIZES)
}

const ETHER: [(&str, u32); 3] = [("wei", 0), ("gwei", 9), ("ether", 18)];

/// Wei of `"30 gwei"`, `"0.05 ether"` or `"1wei"`. Exact: a fraction of a wei is an unknown unit of nothing.
pub fn parse_ether(text: &str) -> Result<u128, UnitError> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || (number.contains('.') && !digits(fraction)) {
        return Err(UnitError::NoNumber);
    }
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    if unit.is_empty() {
        return Err(UnitError::NoUnit);
    }
    let Some((_, decimals)) = ETHER.iter().find(|(u, _)| *u == unit) else {
        return Err(UnitError::UnknownUnit(unit.to_owned()));
    };
    let decimals = *decimals as usize;
    if fraction.len() > decimals {
        return Err(UnitError::TooFine);
    }
    let all = format!("{whole}{fraction}{}", "0".repeat(decimals - fraction.len()));
    all.parse().map_err(|_| UnitError::TooLarge)
}

/// The shortest text [`parse_ether`] reads back as `wei`, for messages.
pub fn format_ether(wei: u128) -> String {
    let (unit, decimals) = match wei {
        0..100_000_000 => ("wei", 0),
        100_000_000..1_000_000_000_000_000 => ("gwei", 9),
        _ => ("ether", 18),
    };
    let factor = 10u128.pow(decimals);
    let fraction = format!("{:0width$}", wei % factor, width = decimals as usize);
    let fraction = if decimals == 0 { "" } else { fraction.trim_end_matches('0') };
    let dot = if fraction.is_empty() { "" } else { "." };
    format!("{}{dot}{fraction} {unit}", wei / factor)
}

/// The shortest text [`parse_duration`] reads back as `ms`, for messages.
pub fn format_duration(ms: i64) -> String {
    let (unit, factor) = DURATIONS.iter().rev().find(|(_, f)| ms != 0 && ms % f == 0).unwrap_or(&DURATIONS[1]);
    format!("{}{unit}", ms / factor)
}

fn parse(text: &str, units: &[(&str, i64)]) -> Result<i64, UnitError> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    if digits.is_empty() {
        return Err(UnitError::NoNumber);
    }
    if unit.is_empty() {
        return Err(UnitError::NoUnit);
    }
    let Some((_, factor)) = units.iter().find(|(u, _)| *u == unit) else {
        return Err(UnitError::UnknownUnit(unit.to_owned()));
    };
    let n: i64 = digits.parse().map_err(|_| UnitError::TooLarge)?;
    n.checked_mul(*factor).ok_or(UnitError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [("10ms", 10), ("30s", 30_000), ("5m", 300_000), ("1h", 3_600_000), ("7d", 604_800_000)] {
            assert_eq!(parse_duration(text), Ok(ms));
            assert_eq!(format_duration(ms), text);
        }
        assert_eq!(parse_duration("0s"), Ok(0));
        assert_eq!(format_duration(0), "0s");
        assert_eq!(format_duration(90_000), "90s");
        assert_eq!(parse_duration("30"), Err(UnitError::NoUnit));
        assert_eq!(parse_duration("s"), Err(UnitError::NoNumber));
        assert_eq!(parse_duration(""), Err(UnitError::NoNumber));
        assert_eq!(parse_duration("-5s"), Err(UnitError::NoNumber));
        assert_eq!(parse_duration("5 s"), Err(UnitError::UnknownUnit(" s".into())));
        assert_eq!(parse_duration("1.5h"), Err(UnitError::UnknownUnit(".5h".into())));
        assert_eq!(parse_duration("99999999999999999999s"), Err(UnitError::TooLarge));
        assert_eq!(parse_duration("4000d"), Err(UnitError::TooLarge));
    }

    #[test]
    fn ether() {
        for (text, wei, shown) in [
            ("1 wei", 1, "1 wei"),
            ("30gwei", 30_000_000_000, "30 gwei"),
            ("0.5 gwei", 500_000_000, "0.5 gwei"),
            ("0.05 ether", 50_000_000_000_000_000, "0.05 ether"),
            ("12 ether", 12_000_000_000_000_000_000, "12 ether"),
            ("0 ether", 0, "0 wei"),
        ] {
            assert_eq!(parse_ether(text), Ok(wei));
            assert_eq!(format_ether(wei), shown);
            assert_eq!(parse_ether(shown), Ok(wei));
        }
        assert_eq!(parse_ether("30"), Err(UnitError::NoUnit));
        assert_eq!(parse_ether("30  gwei"), Err(UnitError::UnknownUnit(" gwei".into())));
        assert_eq!(parse_ether("30 Gwei"), Err(UnitError::UnknownUnit("Gwei".into())));
        for text in ["", "gwei", ".5 gwei", "1. gwei", "1.2.3 gwei", "-1 gwei"] {
            assert_eq!(parse_ether(text), Err(UnitError::NoNumber), "{text}");
        }
        assert_eq!(parse_ether("0.5 wei"), Err(UnitError::TooFine));
        assert_eq!(parse_ether("0.0000000001 gwei"), Err(UnitError::TooFine));
        assert_eq!(parse_ether("999999999999999999999999 ether"), Err(UnitError::TooLarge));
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("1MiB"), Ok(1 << 20));
        assert_eq!(parse_size("10MB"), Ok(10_000_000));
        assert_eq!(parse_size("1M"), Err(UnitError::UnknownUnit("M".into())));
        assert_eq!(parse_size("9999999999GiB"), Err(UnitError::TooLarge));
    }
}
