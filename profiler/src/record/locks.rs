//! Looks at the futexes that are still waited for at the end of a recording, and at who may hold
//! them: plain reads of the target's memory, which stop nothing.
//!
//! What is found holds of the waits that were swept before: a thread that has moved by the time
//! that its stack or a lock that it owns was read is left out.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    thread,
    time::{Duration, Instant},
};

use super::clock;
use crate::{
    recording::{Futex, Record, Reference, Regs, Search},
    runtime::{Awaited, awaited::awaited},
    target,
    units::{Avma, Pid, Tid},
};

/// How long all of it may take.
const LIMIT: Duration = Duration::from_millis(100);

/// How long it is waited for threads that run to sleep.
const RUNNING_LIMIT: Duration = Duration::from_millis(20);

/// How often they are looked at meanwhile.
const RUNNING_STEP: Duration = Duration::from_millis(1);

/// How much of a stack is searched: guards of locks are near the leaf.
const STACK_BYTES: usize = 16 << 10;

/// From a futex to the end of what is read of it: in a `pthread_mutex_t` of glibc (`struct
/// __pthread_mutex_s`) its owner is 8 bytes further.
const FUTEX_BYTES: usize = 12;

/// Thread ids are smaller (`PID_MAX_LIMIT` of `linux/threads.h`).
const MAX_TID: u32 = 1 << 22;

/// A lock can begin with a word before its futex.
const WORD_BYTES: u64 = 4;

/// A thread that was asleep when it was swept.
#[derive(Clone, Copy, Debug)]
pub struct Asleep {
    /// Its process.
    pub pid: Pid,
    /// The thread.
    pub tid: Tid,
    /// Its registers.
    pub regs: Regs,
    /// How often it had been switched out by then.
    pub switches: u64,
}

/// Looks at what threads wait for that were asleep, and searches their stacks and those of the
/// others.
pub fn look(asleep: Vec<Asleep>, others: Vec<(Pid, Tid)>) -> Vec<Record> {
    let deadline = Instant::now() + LIMIT;
    let mut processes: BTreeMap<Pid, (Vec<Asleep>, Vec<Tid>)> = BTreeMap::new();
    for thread in asleep {
        processes.entry(thread.pid).or_default().0.push(thread);
    }
    for (pid, tid) in others {
        processes.entry(pid).or_default().1.push(tid);
    }
    let looks = processes.into_iter().map(|(pid, (asleep, others))| {
        Looking::new(pid, asleep, deadline).map_or_else(Vec::new, |looking| looking.look(others))
    });
    looks.flatten().collect()
}

/// A process that is looked at.
struct Looking {
    pid: Pid,
    /// Those that wait for a futex first.
    asleep: Vec<Asleep>,
    /// What is waited for.
    futexes: BTreeSet<Avma>,
    /// The addresses that are searched for.
    wanted: HashSet<u64>,
    /// The lowest and the highest of them.
    range: (u64, u64),
    deadline: Instant,
    references: Vec<Reference>,
    searched: u32,
    missed: u32,
}

impl Looking {
    /// `None` where nobody waits for a futex.
    fn new(pid: Pid, mut asleep: Vec<Asleep>, deadline: Instant) -> Option<Self> {
        asleep.sort_by_key(|thread| (Reverse(futex(thread).is_some()), thread.tid));
        let futexes: BTreeSet<Avma> = asleep.iter().filter_map(futex).collect();
        let wanted = futexes.iter().flat_map(|at| [at.0, at.0.wrapping_sub(WORD_BYTES)]);
        let range = (futexes.first()?.0.wrapping_sub(WORD_BYTES), futexes.last()?.0);
        Some(Self {
            pid,
            wanted: wanted.collect(),
            asleep,
            futexes,
            range,
            deadline,
            references: Vec::new(),
            searched: 0,
            missed: 0,
        })
    }

    fn look(mut self, others: Vec<Tid>) -> Vec<Record> {
        let threads = || self.asleep.iter().map(|thread| thread.tid).chain(others.iter().copied());
        let mut found = self.words(&threads());
        self.search_asleep();
        self.search_others(others);
        self.leave_out_moved(&mut found);
        let search = Search {
            at: clock::now(),
            pid: self.pid,
            searched: self.searched,
            missed: self.missed,
        };
        let futexes = found.into_iter().map(Record::Futex);
        let references = self.references.into_iter().map(Record::Reference);
        futexes.chain(references).chain([Record::Search(search)]).collect()
    }

    /// The futexes and the words behind them.
    fn words(&self, threads: &(impl Iterator<Item = Tid> + Clone)) -> Vec<Futex> {
        let mut inside: Option<HashMap<u32, Tid>> = None;
        let mut owner = |id: u32| {
            let inside =
                inside.get_or_insert_with(|| target::threads_inside(self.pid, threads.clone()));
            inside.get(&id).copied()
        };
        let look = |address: &Avma| {
            let at = clock::now();
            let mut bytes = [0; FUTEX_BYTES];
            let read = target::read_readable(self.pid, *address, &mut bytes);
            let mut words =
                bytes[..read].as_chunks::<4>().0.iter().copied().map(u32::from_ne_bytes);
            let value = words.next()?;
            let id = words.nth(1).filter(|id| value != 0 && (1..MAX_TID).contains(id));
            let owner = id.and_then(&mut owner);
            Some(Futex { at, pid: self.pid, address: *address, value, owner })
        };
        let in_time = self.futexes.iter().take_while(|_| Instant::now() < self.deadline);
        in_time.filter_map(look).collect()
    }

    fn search_asleep(&mut self) {
        for at in 0..self.asleep.len() {
            let thread = self.asleep[at];
            if Instant::now() < self.deadline {
                self.search(thread.tid, thread.regs.sp, futex(&thread));
            } else {
                self.missed += 1;
            }
        }
    }

    /// Threads that were not asleep are searched as soon as they are.
    fn search_others(&mut self, mut others: Vec<Tid>) {
        let until = self.deadline.min(Instant::now() + RUNNING_LIMIT);
        loop {
            others.retain(|tid| {
                let sp = target::stack_pointer(self.pid, *tid);
                sp.map(|sp| self.search(*tid, sp, None)).is_none()
            });
            if others.is_empty() || Instant::now() >= until {
                break;
            }
            thread::sleep(RUNNING_STEP);
        }
        self.missed += others.len() as u32;
    }

    /// Searches the live part of a stack. That a thread has the address of what it waits for says
    /// nothing.
    fn search(&mut self, tid: Tid, sp: Avma, own: Option<Avma>) {
        let at = clock::now();
        let mut bytes = [0; STACK_BYTES];
        let read = target::read_readable(self.pid, sp, &mut bytes);
        let words = bytes[..read].as_chunks::<8>().0.iter().copied().map(u64::from_ne_bytes);
        let (first, last) = self.range;
        let near = words.filter(|word| (first..=last).contains(word));
        let found = near.filter(|word| self.wanted.contains(word) && own != Some(Avma(*word)));
        let found: BTreeSet<u64> = found.collect();
        let pid = self.pid;
        let references = found.into_iter().map(Avma);
        self.references.extend(references.map(|address| Reference { at, pid, tid, address }));
        self.searched += 1;
    }

    /// Takes out what was found of threads that are not where they were swept any more.
    fn leave_out_moved(&mut self, found: &mut [Futex]) {
        let swept: HashMap<Tid, u64> =
            self.asleep.iter().map(|thread| (thread.tid, thread.switches)).collect();
        let mut moved: HashMap<Tid, bool> = HashMap::new();
        let pid = self.pid;
        let mut has_moved = |tid: Tid| {
            let Some(switches) = swept.get(&tid) else { return false };
            let now = || target::switches(pid, tid).ok();
            *moved.entry(tid).or_insert_with(|| now() != Some(*switches))
        };
        for futex in found {
            futex.owner = futex.owner.filter(|owner| !has_moved(*owner));
        }
        self.references.retain(|reference| !has_moved(reference.tid));
        let moved = moved.into_values().filter(|moved| *moved).count() as u32;
        self.searched = self.searched.saturating_sub(moved);
        self.missed += moved;
    }
}

/// What a thread waits for, if that is a futex.
fn futex(thread: &Asleep) -> Option<Avma> {
    match awaited(Some(thread.regs))? {
        Awaited::Futex { address, .. } => Some(address),
        _ => None,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use std::{sync::mpsc, thread::JoinHandle};

    use super::*;

    /// A thread that sleeps until it is told to end.
    struct Sleeper {
        tid: Tid,
        end: mpsc::Sender<()>,
        thread: JoinHandle<()>,
    }

    impl Sleeper {
        fn start() -> Self {
            let (end, ended) = mpsc::channel::<()>();
            let (says, said) = mpsc::channel();
            let thread = thread::spawn(move || {
                says.send(nix::unistd::gettid()).unwrap();
                let _ = ended.recv();
            });
            let tid = Tid(said.recv().unwrap().as_raw().cast_unsigned());
            while target::stack_pointer(Pid(std::process::id()), tid).is_none() {
                thread::yield_now();
            }
            Self { tid, end, thread }
        }

        fn end(self) {
            drop(self.end);
            self.thread.join().unwrap();
        }
    }

    /// The process looks at itself: threads that are asleep, and pieces of memory that are taken for
    /// what they wait for and for their stacks.
    #[test]
    fn words_and_references_are_found_unless_a_thread_moved() {
        let own = Pid(std::process::id());
        let [holder, waiter] = [Sleeper::start(), Sleeper::start()];
        let lock: [u32; 4] = [2, 0, holder.tid.0, 0];
        let other: [u32; 4] = [1, 0, MAX_TID - 1, 0];
        let (lock_at, other_at) = (lock.as_ptr() as u64, other.as_ptr() as u64);
        let mut stack = vec![0_u64; STACK_BYTES / 8];
        stack[3..7].copy_from_slice(&[lock_at, other_at - 4, other_at, other_at + 4]);
        let stack_at = stack.as_ptr() as u64;
        let waits = |tid: Tid, futex: u64, sp: u64| {
            let args = [futex, 0x80, 2, 0, 0, 0];
            let syscall = u32::try_from(libc::SYS_futex).ok();
            let regs = Regs { ip: Avma(0), sp: Avma(sp), bp: Avma(0), syscall, args };
            Asleep { pid: own, tid, regs, switches: target::switches(own, tid).unwrap() }
        };
        let (mut holds, waits) =
            (waits(holder.tid, other_at, stack_at), waits(waiter.tid, lock_at, 8));
        let check = |holds: Asleep, owner: Option<Tid>, held: &[u64], (searched, missed)| {
            let (mut owners, mut references, mut search) = (Vec::new(), Vec::new(), None);
            for record in look(vec![waits, holds], vec![]) {
                match record {
                    Record::Futex(Futex { address, value, owner, .. }) => {
                        owners.push((address.0, value, owner));
                    }
                    Record::Reference(Reference { tid, address, .. }) => {
                        assert_eq!(tid, holds.tid);
                        references.push(address.0);
                    }
                    Record::Search(found) => search = Some((found.searched, found.missed)),
                    other => panic!("{other:?}"),
                }
            }
            owners.sort_by_key(|(address, ..)| *address != lock_at);
            assert_eq!(owners, [(lock_at, 2, owner), (other_at, 1, None)]);
            assert_eq!(references.iter().collect::<BTreeSet<_>>(), held.iter().collect());
            assert_eq!(search, Some((searched, missed)));
        };
        check(holds, Some(holder.tid), &[lock_at, other_at - 4], (2, 0));
        holds.switches -= 1;
        check(holds, None, &[], (1, 1));
        holder.end();
        waiter.end();
    }
}
