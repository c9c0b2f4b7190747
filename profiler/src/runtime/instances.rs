//! Which threads belong to which instance of a runtime, where a process has several.
//!
//! The names of threads suggest it: threads of one instance are named alike, but for a number. What
//! the threads wait on must confirm it: each Tokio runtime has a driver of its own, and what a Rayon
//! worker sleeps on lies beside those of its pool's other workers. Instances whose threads have the
//! same names stay one pool.

use std::collections::{BTreeMap, HashMap};

use super::{Place, Read, Role, Scope, Thread, View};
use crate::units::Tid;

/// Gives the threads of each instance a scope of their own, as far as instances can be told apart.
pub(super) fn tell_apart(
    places: &mut HashMap<Tid, Place>,
    threads: &[Thread<'_>],
    waits: &[View<'_>],
    readings: &[Option<Read<'_>>],
    runtime: &str,
) {
    let mut seen: HashMap<Tid, Vec<u64>> = HashMap::new();
    for (wait, reading) in waits.iter().zip(readings) {
        let Some(read) = reading else { continue };
        if let (true, Some(number)) = (read.runtime == runtime, read.reading.instance) {
            seen.entry(wait.tid).or_default().push(number);
        }
    }
    let mut groups: BTreeMap<&str, (Vec<Tid>, Vec<u64>)> = BTreeMap::new();
    for thread in threads {
        let Some(place) = places.get(&thread.tid) else { continue };
        let served = place.scope == Scope::Process && place.role != Role::Other;
        if place.runtime == runtime && served {
            let (members, numbers) = groups.entry(stem(thread.name)).or_default();
            members.push(thread.tid);
            numbers.extend(seen.remove(&thread.tid).unwrap_or_default());
        }
    }
    let mut spans: Vec<(u64, u64, Vec<Tid>)> = groups
        .into_values()
        .filter_map(|(members, numbers)| {
            Some((*numbers.iter().min()?, *numbers.iter().max()?, members))
        })
        .collect();
    spans.sort();
    let apart = spans.windows(2).all(|pair| pair[0].1 < pair[1].0);
    if spans.len() < 2 || !apart {
        return;
    }
    for (first, _, members) in spans {
        for tid in members {
            places.entry(tid).and_modify(|place| place.scope = Scope::Instance(first));
        }
    }
}

/// What the names of an instance's threads have in common: the name without its number.
pub fn stem(name: &str) -> &str {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let stem = stem.trim_end_matches(['-', '_', '.', ':', '#', ' ']);
    if stem.is_empty() { name } else { stem }
}
