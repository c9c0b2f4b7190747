//! What each wait was on, from its arguments and from what was found when somebody looked.

use std::{collections::HashMap, path::Path};

use super::report::{self, Holder};
use crate::{
    recording::{self, Handle, Interval, Look, ObjectId, PathBytes, Recording, Thing},
    runtime::{Awaited, awaited::awaited},
    units::{Ktime, Nanos, Pid},
};

/// A look this soon before or after a wait is taken for true where there was none on the other side.
const SOON: Nanos = Nanos(1_000_000_000);

/// What waits were on.
pub struct Objects<'a> {
    recording: &'a Recording,
    /// By process and handle, in order of time.
    looks: HashMap<(Pid, Handle), Vec<(Ktime, ObjectId)>>,
}

/// What a wait was on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Awaits {
    /// Something that was looked at.
    Object(ObjectId),
    /// What the arguments say, and no more.
    Named(Pid, Awaited),
}

impl<'a> Objects<'a> {
    /// The looks of a recording, in order.
    pub fn new(recording: &'a Recording) -> Self {
        let mut looks: HashMap<_, Vec<(Ktime, ObjectId)>> = HashMap::new();
        for Look { at, pid, handle, object } in &recording.looks {
            looks.entry((*pid, *handle)).or_default().push((*at, *object));
        }
        // What is closed by now was something before.
        let is_gone = |id: &ObjectId| {
            recording.objects.get(id).is_none_or(|object| object.thing == Thing::Gone)
        };
        for looks in looks.values_mut() {
            if looks.iter().any(|(_, object)| !is_gone(object)) {
                looks.retain(|(_, object)| !is_gone(object));
            }
        }
        Self { recording, looks }
    }

    /// What a wait was on, and whether its handle may have stood for something else by the time
    /// that it was looked at.
    pub fn of(&self, interval: &Interval) -> Option<(Awaits, bool)> {
        let awaited = awaited(interval.regs)?;
        let (Awaited::Descriptor(number) | Awaited::Epoll(number)) = awaited else {
            return Some((Awaits::Named(interval.pid, awaited), false));
        };
        let looks = self.looks.get(&(interval.pid, Handle::Descriptor(number)));
        let Some((object, reused)) = looks.and_then(|looks| between(looks, interval)) else {
            return Some((Awaits::Named(interval.pid, awaited), false));
        };
        Some((Awaits::Object(object), reused))
    }

    /// How a report says what waits were on.
    pub fn describe(&self, awaits: Awaits) -> report::Object {
        let thing = match awaits {
            Awaits::Named(_, awaited) => return of_arguments(awaited),
            Awaits::Object(id) => self.recording.objects.get(&id).map(|object| &object.thing),
        };
        thing.map_or_else(|| object("gone", String::new()), of_thing)
    }
}

/// The object of a wait among the looks at its handle, and whether that is in doubt: the looks
/// before and after it disagree, or there is one only and it is far away.
fn between(looks: &[(Ktime, ObjectId)], wait: &Interval) -> Option<(ObjectId, bool)> {
    let after = looks.partition_point(|(at, _)| *at < wait.in_);
    let during = looks[..after].iter().rfind(|(at, _)| *at >= wait.out);
    if let Some((_, object)) = during {
        return Some((*object, false));
    }
    match (looks[..after].last(), looks.get(after)) {
        (Some((_, before)), Some((_, after))) => Some((*after, before != after)),
        (None, Some((at, object))) => Some((*object, at.since(wait.in_) > SOON)),
        (Some((at, object)), None) => Some((*object, wait.out.since(*at) > SOON)),
        (None, None) => None,
    }
}

fn of_arguments(awaited: Awaited) -> report::Object {
    match awaited {
        Awaited::Descriptor(number) => object("descriptor", number.to_string()),
        Awaited::Epoll(number) => object("epoll", number.to_string()),
        Awaited::Futex { address, private } => {
            let kind = if private { "futex" } else { "shared-futex" };
            object(kind, format!("{:#x}", address.0))
        }
        Awaited::Child(Some(pid)) => object("process", pid.to_string()),
        Awaited::Child(None) => object("process", "any child".to_owned()),
        Awaited::Clock(number) => object("clock", clock(number)),
    }
}

fn clock(number: u32) -> String {
    match number.cast_signed() {
        libc::CLOCK_REALTIME => "CLOCK_REALTIME".to_owned(),
        libc::CLOCK_MONOTONIC => "CLOCK_MONOTONIC".to_owned(),
        libc::CLOCK_BOOTTIME => "CLOCK_BOOTTIME".to_owned(),
        number => number.to_string(),
    }
}

fn of_thing(thing: &Thing) -> report::Object {
    match thing {
        Thing::Gone => object("gone", String::new()),
        Thing::File(path) => object("file", text(path)),
        Thing::Pipe { inode, path, other_end } => report::Object {
            peers: holders(other_end),
            ..object("pipe", path.as_ref().map_or_else(|| format!("pipe:[{inode}]"), bytes))
        },
        Thing::Inet { protocol, local, peer } => report::Object {
            local: peer.map(|_| local.to_string()),
            ..object(protocol, peer.unwrap_or(*local).to_string())
        },
        Thing::Unix { inode, name, peer_name, peers } => {
            let named = peer_name.as_ref().or(name.as_ref());
            report::Object {
                local: name.as_ref().map(bytes),
                peers: holders(peers),
                ..object("unix", named.map_or_else(|| format!("socket:[{inode}]"), bytes))
            }
        }
        Thing::Socket { inode } => object("socket", format!("socket:[{inode}]")),
        Thing::Process(pid) => object("pidfd", pid.to_string()),
        Thing::Anonymous(name) => {
            let kind = if name == "eventpoll" { "epoll" } else { name };
            object(kind, String::new())
        }
    }
}

fn object(kind: &str, name: String) -> report::Object {
    report::Object {
        kind: kind.to_owned(),
        name,
        local: None,
        peers: Vec::new(),
        count: 0,
        total_ns: 0,
        reused: false,
    }
}

fn holders(all: &[recording::Holder]) -> Vec<Holder> {
    let holder =
        |holder: &recording::Holder| Holder { pid: holder.pid.0, name: holder.name.clone() };
    all.iter().map(holder).collect()
}

fn bytes(path: &PathBytes) -> String {
    text(&path.0)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        analysis::sample::{PID, START, Sample, Wait},
        recording::Object,
    };

    /// ```text
    ///          0         1         2         3         4 s
    /// looks         a                   b
    /// waits      ||     ||   |---------------|  |-|           |-|
    /// ```
    #[test]
    fn a_wait_is_on_what_the_looks_around_it_agree_on() {
        const MS: u64 = 1_000_000;
        let [a, b, gone] = [0, 1, 2].map(ObjectId);
        let check = |looks: &[(u64, ObjectId)], (out, in_): (u64, u64), expected| {
            let mut sample = Sample::new(10_000 * MS);
            let (out, in_) = (out * MS, in_ * MS);
            let read = Some(libc::SYS_read);
            sample.wait(Wait { tid: 1, span: (out, in_, in_), syscall: read, stack: &["f"] });
            let recording = &mut sample.recording;
            let things = [Thing::Socket { inode: 1 }, Thing::Socket { inode: 2 }, Thing::Gone];
            for (id, thing) in [a, b, gone].into_iter().zip(things) {
                recording.objects.insert(id, Object { id, thing });
            }
            recording.looks = looks
                .iter()
                .map(|(at, object)| Look {
                    at: Ktime(START.0 + at * MS),
                    pid: PID,
                    handle: Handle::Descriptor(0),
                    object: *object,
                })
                .collect();
            let found = Objects::new(recording).of(&recording.intervals[0]);
            let found = found.map(|(awaits, reused)| match awaits {
                Awaits::Object(id) => (id, reused),
                Awaits::Named(..) => panic!("{looks:?} were not used"),
            });
            assert_eq!(found, expected, "{out}..{in_} with {looks:?}");
        };
        let both = [(500, a), (2500, b)];
        check(&both, (200, 210), Some((a, false)));
        check(&both, (900, 910), Some((b, true)));
        check(&both, (1400, 3000), Some((b, false)));
        check(&both, (3300, 3400), Some((b, false)));
        check(&both, (4700, 4800), Some((b, true)));
        check(&[(500, a), (2500, a)], (900, 910), Some((a, false)));
        // Too late after it to be sure.
        check(&[(2500, a)], (200, 210), Some((a, true)));
        // It was closed after the wait.
        check(&[(500, a), (1000, gone)], (900, 910), Some((a, false)));
        check(&[(1000, gone)], (900, 910), Some((gone, false)));
    }
}
