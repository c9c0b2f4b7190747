//! Times, shares and counts as a person reads them.

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
    fn counts_have_separators() {
        for (n, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(n), expected);
        }
    }
}
