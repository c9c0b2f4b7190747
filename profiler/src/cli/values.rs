//! Times and sizes as they are typed.

use std::time::Duration;

use crate::units::Nanos;

/// Units of time and their length in nanoseconds.
const TIMES: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("min", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Units of size and their length in bytes.
const SIZES: &[(&str, u64)] = &[
    ("B", 1),
    ("K", 1 << 10),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("KB", 1_000),
    ("M", 1 << 20),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("G", 1 << 30),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
];

/// A length of time above zero; a bare number is seconds.
pub fn seconds(text: &str) -> Result<Duration, String> {
    match scaled(text, TIMES, Some("s"))? {
        0 => Err("must be longer than zero".to_owned()),
        ns => Ok(Duration::from_nanos(ns)),
    }
}

/// A length of time; a bare number other than 0 has no unit and is refused.
pub fn nanos(text: &str) -> Result<Nanos, String> {
    let default = (text == "0").then_some("ns");
    scaled(text, TIMES, default).map(Nanos)
}

/// A size above zero; a bare number is bytes.
pub fn bytes(text: &str) -> Result<u64, String> {
    match scaled(text, SIZES, Some("B"))? {
        0 => Err("must be larger than zero".to_owned()),
        bytes => Ok(bytes),
    }
}

/// The number at the start of `text` times the unit after it, or times `default` without one.
fn scaled(text: &str, units: &[(&str, u64)], default: Option<&str>) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..end], text[end..].trim());
    let known = || units.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let unit = match (unit, default) {
        ("", Some(default)) => default,
        ("", None) => return Err(format!("needs a unit: {}", known())),
        (unit, _) => unit,
    };
    let (_, factor) = units
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(|| format!("unknown unit `{unit}`; known are {}", known()))?;
    // The whole part is exact; only a fraction goes through floating point.
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole = whole.parse::<u64>().map_err(|_| format!("`{number}` is not a number"))?;
    let fraction = format!("0.{fraction}")
        .parse::<f64>()
        .map_err(|_| format!("`{number}` is not a number"))?;
    whole
        .checked_mul(*factor)
        .and_then(|product| product.checked_add((fraction * *factor as f64) as u64))
        .ok_or_else(|| format!("`{text}` is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_read_as_typed() {
        type Read = fn(&str) -> Option<u64>;
        let ns: Read = |text| seconds(text).ok().map(|duration| duration.as_nanos() as u64);
        let min_block: Read = |text| nanos(text).ok().map(|nanos| nanos.0);
        let size: Read = |text| bytes(text).ok();
        for (read, text, expected) in [
            (ns, "10", Some(10_000_000_000)),
            (ns, "10s", Some(10_000_000_000)),
            (ns, "500ms", Some(500_000_000)),
            (ns, "2m", Some(120_000_000_000)),
            (ns, "1.5s", Some(1_500_000_000)),
            (ns, "0", None),
            (ns, "-1", None),
            (ns, "", None),
            (ns, "ten", None),
            (ns, "1..5", None),
            (ns, "10 parsecs", None),
            (ns, "99999999999999999999", None),
            (ns, "18446744073709551615h", None),
            (min_block, "100us", Some(100_000)),
            (min_block, "100µs", Some(100_000)),
            (min_block, "0", Some(0)),
            (min_block, "100", None),
            (size, "1GiB", Some(1 << 30)),
            (size, "1.5KiB", Some(1536)),
            (size, "500MB", Some(500_000_000)),
            (size, "4096", Some(4096)),
            (size, "0", None),
            (size, "1XB", None),
        ] {
            assert_eq!(read(text), expected, "{text:?}");
        }
    }
}
