//! Addresses that lie in no known mapping, and how often one is worth another reading.

use std::{collections::HashMap, time::Duration};

use crate::units::{Avma, Ktime};

/// How long an address that a reading did not explain is not looked for again.
const SAME_ADDRESS: Duration = Duration::from_secs(1);

/// How long after a reading that did not explain its address another one is not looked for either:
/// numbers that a walk mistakes for addresses can be new ones every time.
const ANY_ADDRESS: Duration = Duration::from_millis(100);

/// The addresses that the mappings of a process did not explain.
#[derive(Debug, Default)]
pub struct Unexplained {
    /// And since when that is known.
    addresses: HashMap<Avma, Ktime>,
    latest: Option<Ktime>,
}

impl Unexplained {
    /// Whether the mappings may be read again for the sake of this address.
    pub fn is_worth_reading(&self, address: Avma, now: Ktime) -> bool {
        let is_over =
            |since: Option<&Ktime>, length| since.is_none_or(|&at| !is_within(at, length, now));
        is_over(self.latest.as_ref(), ANY_ADDRESS)
            && is_over(self.addresses.get(&address), SAME_ADDRESS)
    }

    /// A reading did not explain it.
    pub fn note(&mut self, address: Avma, now: Ktime) {
        self.addresses.retain(|_, since| is_within(*since, SAME_ADDRESS, now));
        self.addresses.insert(address, now);
        self.latest = Some(now);
    }
}

fn is_within(since: Ktime, length: Duration, now: Ktime) -> bool {
    u128::from(now.since(since).0) < length.as_nanos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mappings_are_not_read_again_and_again_for_what_they_do_not_explain() {
        let at = |millis: u64| Ktime(millis * 1_000_000);
        let mut unexplained = Unexplained::default();
        let check = |unexplained: &Unexplained, address, millis, expected| {
            let worth = unexplained.is_worth_reading(Avma(address), at(millis));
            assert_eq!(worth, expected, "{address:#x} at {millis} ms");
        };
        check(&unexplained, 0xbad, 1000, true);
        unexplained.note(Avma(0xbad), at(1000));
        for (address, millis, expected) in [
            (0xbad, 1001, false),
            (0x123, 1099, false),
            (0x123, 1100, true),
            (0xbad, 1999, false),
            (0xbad, 2000, true),
        ] {
            check(&unexplained, address, millis, expected);
        }
        for garbage in 0..100 {
            unexplained.note(Avma(garbage), at(3000 + 100 * garbage));
        }
        assert!(unexplained.addresses.len() <= 10, "{unexplained:?}");
    }
}
