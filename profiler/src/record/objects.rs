//! What the target's threads wait on, looked up soon after the wait in a thread of its own.
//!
//! A look at a descriptor is one `readlink`. What the link does not say (addresses, the other end)
//! is looked up for several at once, once for each distinct link, and the longer that takes the
//! longer it rests.

use std::{
    collections::HashMap,
    io,
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    thread,
    time::{Duration, Instant},
};

use super::clock;
use crate::{
    recording::{Handle, Holder, Interval, Look, Object, ObjectId, PathBytes, Record, Thing},
    runtime::{Awaited, awaited::awaited},
    target::{self, Descriptor, Opener, UnixSockets},
    units::{Ktime, Nanos, Pid, Tid},
};

/// A handle that is waited on all the time is looked at this often.
const AGAIN: Nanos = Nanos(500_000_000);

/// Questions that wait for an answer; further ones are asked by a later wait.
const MAX_ASKED: usize = 1024;

/// Looks of a moment are gathered for this long.
const GATHER: Duration = Duration::from_millis(20);

/// Looking things up takes one part of this many.
const REST: u32 = 50;

/// How long the last answers are waited for.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Things kept in mind; with more they are found out anew.
const MAX_KNOWN: usize = 1 << 16;

/// Processes named as the other end of one thing.
const MAX_HOLDERS: usize = 4;

/// Asks what is waited on, and takes the answers.
pub struct Objects {
    asks: SyncSender<Ask>,
    facts: Receiver<Record>,
    asked: HashMap<(Pid, Handle), Asked>,
    /// Those that were waited on since.
    again: Vec<(Pid, Handle)>,
}

/// When a handle was last asked about.
struct Asked {
    at: Ktime,
    /// A thread that has it.
    tid: Tid,
    waited_since: bool,
}

struct Ask {
    pid: Pid,
    tid: Tid,
    handle: Handle,
}

impl Objects {
    /// Starts the thread that looks.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start() -> io::Result<Self> {
        let (asks, asked) = mpsc::sync_channel(MAX_ASKED);
        let (found, facts) = mpsc::channel();
        thread::Builder::new().name("objects".to_owned()).spawn(move || {
            let mut looker = Looker::default();
            looker.run(&asked, &found);
        })?;
        Ok(Self { asks, facts, asked: HashMap::new(), again: Vec::new() })
    }

    /// Asks what an interval is on, unless that was asked a moment ago.
    pub fn ask(&mut self, interval: &Interval) {
        let handle = match awaited(interval.regs) {
            Some(Awaited::Descriptor(number) | Awaited::Epoll(number)) => {
                Handle::Descriptor(number)
            }
            Some(Awaited::Futex { .. } | Awaited::Child(_) | Awaited::Clock(_)) | None => return,
        };
        let key = (interval.pid, handle);
        match self.asked.get_mut(&key) {
            Some(asked) if interval.in_.since(asked.at) < AGAIN => {
                if !asked.waited_since {
                    asked.waited_since = true;
                    self.again.push(key);
                }
            }
            _ => self.send(key, interval.tid, interval.in_),
        }
    }

    /// Asks again about what was waited on since it was asked about, and that at least `old` ago:
    /// two looks that agree tell of all waits between them.
    pub fn ask_again(&mut self, old: Nanos) {
        let now = clock::now();
        for key in std::mem::take(&mut self.again) {
            match self.asked.get(&key) {
                Some(asked) if !asked.waited_since => {}
                Some(asked) if now.since(asked.at) >= old => self.send(key, asked.tid, now),
                _ => self.again.push(key),
            }
        }
    }

    fn send(&mut self, (pid, handle): (Pid, Handle), tid: Tid, at: Ktime) {
        if self.asks.try_send(Ask { pid, tid, handle }).is_ok() {
            self.asked.insert((pid, handle), Asked { at, tid, waited_since: false });
        }
    }

    /// The answers that are there.
    pub fn answers(&mut self) -> Vec<Record> {
        self.ask_again(AGAIN);
        self.facts.try_iter().collect()
    }

    /// The last answers. Those that a file system that hangs keeps back are not waited for.
    pub fn finish(self) -> Vec<Record> {
        let Self { asks, facts, .. } = self;
        drop(asks);
        let begun = Instant::now();
        let next = || facts.recv_timeout(LAST_ANSWERS.saturating_sub(begun.elapsed())).ok();
        std::iter::from_fn(next).collect()
    }
}

/// What was found so far.
#[derive(Default)]
struct Looker {
    /// Things by what the link said; a process has a number of its own for a thing of its own.
    known: HashMap<(Pid, Option<Descriptor>), ObjectId>,
    numbers: HashMap<Thing, ObjectId>,
    /// The next number.
    next: u32,
    /// Looks at things that are not known yet.
    unknown: Vec<Seen>,
}

struct Seen {
    at: Ktime,
    ask: Ask,
    descriptor: Option<Descriptor>,
}

impl Looker {
    fn run(&mut self, asks: &Receiver<Ask>, found: &mpsc::Sender<Record>) {
        let mut rests_until = Instant::now();
        loop {
            let rest = rests_until.saturating_duration_since(Instant::now());
            // Without anything to look up later there is no hurry.
            let wait = if self.unknown.is_empty() { Duration::MAX } else { rest.max(GATHER) };
            let over = match asks.recv_timeout(wait) {
                Ok(ask) => {
                    self.look(ask, found);
                    false
                }
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            while let Ok(ask) = asks.try_recv() {
                self.look(ask, found);
            }
            if over || Instant::now() >= rests_until {
                let begun = Instant::now();
                self.find_out(found);
                rests_until = Instant::now() + (begun.elapsed() * REST).max(GATHER);
            }
            if over {
                return;
            }
        }
    }

    fn look(&mut self, ask: Ask, found: &mpsc::Sender<Record>) {
        let at = clock::now();
        let Handle::Descriptor(number) = ask.handle;
        let descriptor = target::descriptor(ask.tid, number).ok();
        match self.known.get(&(ask.pid, descriptor.clone())) {
            Some(object) => tell(found, Record::Look(look(at, &ask, *object))),
            None => self.unknown.push(Seen { at, ask, descriptor }),
        }
    }

    /// Finds out about everything that is not known yet.
    fn find_out(&mut self, found: &mpsc::Sender<Record>) {
        let unknown = std::mem::take(&mut self.unknown);
        if unknown.is_empty() {
            return;
        }
        if self.known.len().max(self.numbers.len()) > MAX_KNOWN {
            self.known.clear();
            self.numbers.clear();
        }
        let facts = Facts::gather(&unknown);
        for seen in unknown {
            let thing = facts.thing(&seen);
            // A socket can be connected later.
            let settled = !matches!(thing, Thing::Socket { .. } | Thing::Inet { peer: None, .. });
            let next = ObjectId(self.next);
            let object = *self.numbers.entry(thing.clone()).or_insert(next);
            if object == next {
                self.next += 1;
                tell(found, Record::Object(Object { id: object, thing }));
            }
            if settled {
                self.known.insert((seen.ask.pid, seen.descriptor.clone()), object);
            }
            tell(found, Record::Look(look(seen.at, &seen.ask, object)));
        }
    }
}

fn look(at: Ktime, ask: &Ask, object: ObjectId) -> Look {
    Look { at, pid: ask.pid, handle: ask.handle, object }
}

/// Nobody may listen any more.
fn tell(found: &mpsc::Sender<Record>, fact: Record) {
    let _ = found.send(fact);
}

/// What the tables of the system say about some things.
struct Facts {
    /// By process, whose network namespace it is.
    inet: HashMap<Pid, HashMap<u64, target::InetSocket>>,
    unix: HashMap<Pid, HashMap<u64, target::UnixSocket>>,
    openers: HashMap<Descriptor, Vec<Opener>>,
}

impl Facts {
    fn gather(all: &[Seen]) -> Self {
        let mut facts =
            Self { inet: HashMap::new(), unix: HashMap::new(), openers: HashMap::new() };
        let mut wanted = Vec::new();
        for Seen { ask, descriptor, .. } in all {
            match descriptor {
                Some(pipe @ (Descriptor::Pipe(_) | Descriptor::Fifo(..))) => {
                    wanted.push(pipe.clone());
                }
                Some(Descriptor::Socket(inode)) => {
                    let inet =
                        facts.inet.entry(ask.pid).or_insert_with(|| target::inet_sockets(ask.tid));
                    if inet.contains_key(inode) {
                        continue;
                    }
                    let Some(socket) = UnixSockets::of(ask.tid).ok().and_then(|s| s.get(*inode))
                    else {
                        continue;
                    };
                    wanted.extend(socket.peer.map(Descriptor::Socket));
                    facts.unix.entry(ask.pid).or_default().insert(*inode, socket);
                }
                _ => {}
            }
        }
        for (pid, sockets) in &mut facts.unix {
            let tid = Tid(pid.0);
            let Ok(known) = UnixSockets::of(tid) else { continue };
            let peers: Vec<u64> = sockets.values().filter_map(|socket| socket.peer).collect();
            for peer in peers {
                if let Some(socket) = known.get(peer) {
                    sockets.entry(peer).or_insert(socket);
                }
            }
        }
        if !wanted.is_empty() {
            facts.openers = target::openers(&wanted);
        }
        facts
    }

    fn thing(&self, Seen { ask, descriptor, .. }: &Seen) -> Thing {
        let Handle::Descriptor(number) = ask.handle;
        let Some(descriptor) = descriptor else { return Thing::Gone };
        match descriptor {
            Descriptor::File(path) => Thing::File(path.clone()),
            Descriptor::Pipe(inode) => Thing::Pipe {
                inode: *inode,
                path: None,
                other_end: self.other_end(descriptor, ask.tid, number),
            },
            Descriptor::Fifo(path, _, inode) => Thing::Pipe {
                inode: *inode,
                path: Some(PathBytes(path.clone())),
                other_end: self.other_end(descriptor, ask.tid, number),
            },
            Descriptor::Socket(inode) => self.socket(ask.pid, *inode),
            Descriptor::Anonymous(name) if name == "pidfd" => {
                target::pidfd_process(ask.tid, number).map_or(Thing::Gone, Thing::Process)
            }
            Descriptor::Anonymous(name) => Thing::Anonymous(name.clone()),
        }
    }

    fn socket(&self, pid: Pid, inode: u64) -> Thing {
        let inet = self.inet.get(&pid).and_then(|sockets| sockets.get(&inode));
        if let Some(target::InetSocket { protocol, local, peer }) = inet {
            return Thing::Inet { protocol: (*protocol).to_owned(), local: *local, peer: *peer };
        }
        let unix = self.unix.get(&pid);
        let Some(socket) = unix.and_then(|sockets| sockets.get(&inode)) else {
            return Thing::Socket { inode };
        };
        let peer = unix.zip(socket.peer).and_then(|(sockets, peer)| sockets.get(&peer));
        let holders = socket.peer.and_then(|peer| self.openers.get(&Descriptor::Socket(peer)));
        Thing::Unix {
            inode,
            name: socket.name.clone().map(PathBytes),
            peer_name: peer.and_then(|peer| peer.name.clone()).map(PathBytes),
            peers: few(holders.into_iter().flatten()),
        }
    }

    /// Who has the other end of a pipe: writers of what this descriptor reads, and the reverse.
    fn other_end(&self, pipe: &Descriptor, tid: Tid, number: u32) -> Vec<Holder> {
        let Some(own) = target::ends(tid, number) else { return Vec::new() };
        let openers = self.openers.get(pipe).into_iter().flatten();
        few(openers.filter(|opener| {
            (own.reads && opener.ends.writes) || (own.writes && opener.ends.reads)
        }))
    }
}

fn few<'a>(openers: impl Iterator<Item = &'a Opener>) -> Vec<Holder> {
    let holder = |opener: &Opener| Holder { pid: opener.pid, name: opener.name.clone() };
    let mut holders: Vec<_> = openers.map(holder).collect();
    holders.sort_unstable();
    holders.dedup();
    holders.truncate(MAX_HOLDERS);
    holders
}
