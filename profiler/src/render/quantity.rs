//! Times, shares and counts as a person reads them.

use std::cmp::Reverse;

/// Units of time, largest first, with their length in nanoseconds.
const UNITS: [(&str, f64); 4] = [("s", 1e9), ("ms", 1e6), ("µs", 1e3), ("ns", 1.0)];

/// Nanoseconds with three significant digits: `2.31 s`, `45.0 ms`, `870 µs`, `0 s`.
pub fn time(ns: u64) -> String {
    if ns == 0 {
        return "0 s".to_owned();
    }
    for (unit, length) in UNITS {
        let value = ns as f64 / length;
        // 0.9995 of a unit is rounded to 1.00 of it, not to 1000 of the next smaller one.
        if value >= 0.9995 {
            let decimals = match value {
                _ if unit == "ns" => 0,
                v if v >= 99.95 => 0,
                v if v >= 9.995 => 1,
                _ => 2,
            };
            return format!("{value:.decimals$} {unit}");
        }
    }
    format!("{ns} ns")
}

/// `part` of `whole` in percent: `61.3 %`, `<0.1 %`, `0 %`; `-` where there is no whole.
pub fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    let percent = 100.0 * part as f64 / whole as f64;
    match part {
        0 => "0 %".to_owned(),
        _ if percent < 0.05 => "<0.1 %".to_owned(),
        // Nearly everything must not read as everything.
        _ if part < whole && percent > 99.9 => ">99.9 %".to_owned(),
        _ => format!("{percent:.1} %"),
    }
}

/// What each part is of their sum, as [`share`] writes it: rounded so that they add up to 100.0 %,
/// `<0.1 %` counted as nothing.
pub fn shares(parts: &[u64]) -> Vec<String> {
    let whole: u128 = parts.iter().map(|part| u128::from(*part)).sum();
    if whole == 0 {
        return vec!["-".to_owned(); parts.len()];
    }
    let exact = || parts.iter().map(|part| u128::from(*part) * 1000);
    let mut tenths: Vec<u128> = exact().map(|part| part / whole).collect();
    let left = 1000 - tenths.iter().sum::<u128>();
    let mut by_rest: Vec<(usize, u128)> = exact().map(|part| part % whole).enumerate().collect();
    by_rest.sort_by_key(|(_, rest)| Reverse(*rest));
    for (at, _) in by_rest.into_iter().take(left as usize) {
        tenths[at] += 1;
    }
    let written = parts.iter().zip(tenths).map(|(part, tenths)| match tenths {
        0 if *part > 0 => "<0.1 %".to_owned(),
        1000 if u128::from(*part) < whole => ">99.9 %".to_owned(),
        0 => "0 %".to_owned(),
        _ => format!("{}.{} %", tenths / 10, tenths % 10),
    });
    written.collect()
}

/// A count with thousands separators: `12,345`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_significant_digits() {
        for (ns, expected) in [
            (0, "0 s"),
            (1, "1 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (999_499, "999 µs"),
            (999_500, "1.00 ms"),
            (9_994_000, "9.99 ms"),
            (9_996_000, "10.0 ms"),
            (99_960_000, "100 ms"),
            (2_310_000_000, "2.31 s"),
            (4_000_000_000_000, "4000 s"),
        ] {
            assert_eq!(time(ns), expected, "{ns} ns");
        }
    }

    #[test]
    fn shares_never_hide_a_rest() {
        for (part, whole, expected) in [
            (0, 0, "-"),
            (0, 10, "0 %"),
            (10, 10, "100.0 %"),
            (1, 100_000, "<0.1 %"),
            (99_999, 100_000, ">99.9 %"),
            (613, 1000, "61.3 %"),
        ] {
            assert_eq!(share(part, whole), expected, "{part} of {whole}");
        }
    }

    #[test]
    fn shares_of_one_whole_add_up() {
        for (parts, expected) in [
            (&[1, 1, 1][..], &["33.4 %", "33.3 %", "33.3 %"][..]),
            (&[2_666, 2_666, 2_668, 2_000], &["26.7 %", "26.6 %", "26.7 %", "20.0 %"]),
            (&[999_999, 1, 0], &[">99.9 %", "<0.1 %", "0 %"]),
            (&[5, 0], &["100.0 %", "0 %"]),
            (&[0, 0], &["-", "-"]),
            (&[u64::MAX, u64::MAX], &["50.0 %", "50.0 %"]),
        ] {
            assert_eq!(shares(parts), expected, "{parts:?}");
        }
        // Rounded one by one, these would be 100.4 %.
        let parts = [u64::MAX; 7].map(|max| max / 7).map(|n| n - n % 3);
        let shares = shares(&parts);
        let tenths = shares.iter().map(|text| {
            text.trim_end_matches(" %").replace('.', "").parse::<u32>().expect("a share")
        });
        assert_eq!(tenths.sum::<u32>(), 1000);
    }

    #[test]
    fn counts_have_separators() {
        for (n, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(n), expected);
        }
    }
}
