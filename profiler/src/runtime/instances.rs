//! Which threads belong to which instance of a runtime, where a process has several.
//!
//! The names of threads suggest it: threads of one instance are named alike, but for a number. What
//! the threads wait on must confirm it: each Tokio runtime has a driver of its own, and what a Rayon
//! worker sleeps on lies beside those of its pool's other workers. Instances whose threads have the
//! same names stay one pool.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Place, Read, Role, Scope, Thread, View};
use crate::units::Tid;

/// What a wait shows of the instance that its thread belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// A number that each instance has one of.
    Own(u64),
    /// A number that lies near the others of the same instance, and away from those of another.
    Near(u64),
}

/// Numbers that are further apart than this are not near: in Rayon's array a worker has 128 bytes, and
/// the arrays of two pools have those pools' queues between them.
const NEAR: u64 = 1024;

/// What is known of the threads that are named alike.
#[derive(Default)]
struct Group {
    threads: Vec<Tid>,
    numbers: BTreeSet<u64>,
}

/// Gives the threads of each instance a scope of their own, as far as instances can be told apart;
/// where there are several and they cannot, all threads get the scope that says so.
pub(super) fn tell_apart(
    places: &mut HashMap<Tid, Place>,
    threads: &[Thread<'_>],
    waits: &[View<'_>],
    readings: &[Option<Read<'_>>],
    runtime: &str,
) {
    let mut seen: HashMap<Tid, Vec<u64>> = HashMap::new();
    let mut own: BTreeSet<u64> = BTreeSet::new();
    for (wait, reading) in waits.iter().zip(readings) {
        let Some(read) = reading else { continue };
        let Some(sign) = read.reading.instance.filter(|_| read.runtime == runtime) else {
            continue;
        };
        let (Sign::Own(number) | Sign::Near(number)) = sign;
        seen.entry(wait.tid).or_default().push(number);
        if matches!(sign, Sign::Own(_)) {
            own.insert(number);
        }
    }
    let is_shared = |place: &Place| place.runtime == runtime && place.scope == Scope::Process;
    let mut groups: BTreeMap<&str, Group> = BTreeMap::new();
    for thread in threads {
        let place = places.get(&thread.tid).filter(|place| is_shared(place));
        if place.is_some_and(|place| place.role != Role::Other) {
            let group = groups.entry(stem(thread.name)).or_default();
            group.threads.push(thread.tid);
            group.numbers.extend(seen.remove(&thread.tid).unwrap_or_default());
        }
    }
    let mut spans: Vec<(u64, u64, Vec<Tid>)> = groups
        .into_values()
        .filter_map(|Group { threads, numbers }| {
            Some((*numbers.first()?, *numbers.last()?, threads))
        })
        .collect();
    spans.sort();
    let gap = if own.is_empty() { NEAR } else { 0 };
    let apart = spans.windows(2).all(|pair| pair[0].1 + gap < pair[1].0);
    let mixed = own.len() > spans.len() || !apart;
    if mixed && own.len() > 1 {
        for place in places.values_mut().filter(|place| is_shared(place)) {
            place.scope = Scope::Several;
        }
    } else if apart && spans.len() > 1 {
        for (first, _, members) in spans {
            for tid in members {
                places.entry(tid).and_modify(|place| place.scope = Scope::Instance(first));
            }
        }
    }
}

/// What the names of an instance's threads have in common: the name without its number.
pub fn stem(name: &str) -> &str {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let stem = stem.trim_end_matches(['-', '_', '.', ':', '#', ' ']);
    if stem.is_empty() { name } else { stem }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Reading, Reason, State};

    /// Each worker's name and what it waits on; the scopes of all.
    fn check(workers: &[(&str, Option<Sign>)], expected: &[Scope]) {
        let tid = |at: usize| Tid(at as u32);
        let readings: Vec<Reading> = workers
            .iter()
            .map(|(_, instance)| Reading {
                state: State::Idle,
                role: Some(Role::Worker),
                scope: Some(Scope::Process),
                instance: *instance,
                task: None,
                below: 0,
                under_task: false,
                entry_hidden: None,
                in_pool_thread: true,
            })
            .collect();
        let read = |reading| Some(Read { runtime: "x", reading, inferred: false });
        let readings: Vec<_> = readings.iter().map(read).collect();
        let waits: Vec<_> = (0..workers.len())
            .map(|at| View { tid: tid(at), reason: Reason::Poll, object: None, stack: None })
            .collect();
        let threads: Vec<_> = workers
            .iter()
            .enumerate()
            .map(|(at, (name, _))| Thread { tid: tid(at), name })
            .collect();
        let (scope, role) = (Scope::Process, Role::Worker);
        let place = Place { runtime: "x", scope, role, inferred: false };
        let mut places = threads.iter().map(|thread| (thread.tid, place)).collect();
        tell_apart(&mut places, &threads, &waits, &readings, "x");
        let found: Vec<_> = threads.iter().map(|thread| places[&thread.tid].scope).collect();
        assert_eq!(found, expected, "{workers:?}");
    }

    #[test]
    fn names_divide_what_the_drivers_confirm() {
        let driver = |fd| Some(Sign::Own(fd));
        let near = |address| Some(Sign::Near(address));
        let (a, b) = (Scope::Instance(3), Scope::Instance(9));
        check(&[("a-1", driver(3)), ("a-2", None), ("b", driver(9)), ("b", None)], &[a, a, b, b]);
        let far = 9 + NEAR;
        check(
            &[("a-1", near(3)), ("a-2", near(5)), ("b", near(far))],
            &[a, a, Scope::Instance(far)],
        );
        // One driver under two names is one runtime.
        check(&[("a", driver(3)), ("b", driver(3))], &[Scope::Process; 2]);
        check(&[("a", near(3)), ("b", near(131))], &[Scope::Process; 2]);
        check(&[("a", near(3)), ("b", near(5000)), ("a", near(9000))], &[Scope::Process; 3]);
        // A name alone proves nothing.
        check(&[("a", driver(3)), ("b", None)], &[Scope::Process; 2]);
        // Two drivers under one name are two runtimes that cannot be told apart.
        check(&[("a", driver(3)), ("a", driver(9)), ("a", None)], &[Scope::Several; 3]);
    }
}
