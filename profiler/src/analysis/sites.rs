//! Distinct stacks in distinct states, and the waits that each stands for.

use std::{cmp::Reverse, collections::HashMap};

use super::{
    judge::Judged,
    objects::{Awaits, Objects},
    report::{Frame, Object, Reason, Role, Site, StackQuality, State},
    stacks::Stacks,
    wakers::Wakers,
};
use crate::recording::{Interval, KernelStackId, Recording, UserStackId};

/// The sites found so far.
pub struct Sites<'a> {
    stacks: &'a Stacks<'a>,
    judged: &'a Judged,
    objects: Objects<'a>,
    wakers: Wakers<'a>,
    found: Vec<(Key, Waits)>,
    by_key: HashMap<Key, usize>,
    /// Most intervals repeat an earlier one in all that matters; these need no look at frames.
    by_origin: HashMap<Origin, usize>,
    by_ids: HashMap<(Option<UserStackId>, Option<KernelStackId>), usize>,
    by_frames: HashMap<Vec<Frame>, usize>,
    /// The site of each interval of the recording, where it is at one.
    by_interval: Vec<Option<usize>>,
}

/// What makes two waits the same site.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    pool: usize,
    role: Role,
    state: State,
    reason: Reason,
    label: Option<&'static str>,
    task: Option<String>,
    stack: StackQuality,
    frames: usize,
    inferred: bool,
}

type Origin = (usize, Role, Option<(Reason, usize)>, Option<UserStackId>, Option<KernelStackId>);

#[derive(Debug, Default)]
struct Waits {
    count: u64,
    waiting: Vec<u64>,
    /// Waiting that no recorded interval explains.
    unexplained: u64,
    runnable: u64,
    objects: HashMap<Awaits, Awaited>,
    /// Those of which it is known what ended them.
    ended: Vec<usize>,
}

/// The waits of a site that were on one thing.
#[derive(Debug, Default)]
struct Awaited {
    count: u64,
    waiting: u64,
    reused: bool,
}

/// All sites.
pub struct Finished {
    pub sites: Vec<Site>,
    /// The index of each site by the number that [`Sites::add`] gave it.
    pub order: Vec<usize>,
    /// The index of the site of each interval, where it is at one.
    pub by_interval: Vec<Option<usize>>,
}

/// Objects that are named at a site.
const OBJECTS: usize = 5;

impl<'a> Sites<'a> {
    /// No sites yet.
    pub fn new(recording: &'a Recording, stacks: &'a Stacks<'a>, judged: &'a Judged) -> Self {
        Self {
            stacks,
            judged,
            objects: Objects::new(recording),
            wakers: Wakers::new(recording, stacks),
            found: Vec::new(),
            by_key: HashMap::new(),
            by_origin: HashMap::new(),
            by_ids: HashMap::new(),
            by_frames: HashMap::new(),
            by_interval: vec![None; recording.intervals.len()],
        }
    }

    /// Adds interval `index` of a thread of `pool`; the number of its site until [`Self::finish`].
    pub fn add(&mut self, pool: usize, role: Role, index: usize, interval: &Interval) -> usize {
        let (user, kernel) = (interval.user_stack, interval.kernel_stack);
        let judgement = self.judged.intervals[index];
        let meaning = judgement.map(|judgement| (judgement.reason, judgement.meaning));
        let origin = (pool, role, meaning, user, kernel);
        let known = self.by_origin.get(&origin).copied();
        let site = known.unwrap_or_else(|| self.site_of(pool, role, index, interval));
        self.by_origin.insert(origin, site);
        self.by_interval[index] = Some(site);
        let waits = &mut self.found[site].1;
        waits.count += 1;
        waits.runnable += interval.in_.since(interval.wake).0;
        if interval.waker.is_some() {
            waits.ended.push(index);
        }
        if judgement.is_some() {
            let waiting = interval.wake.since(interval.out).0;
            waits.waiting.push(waiting);
            if let Some((awaits, reused)) = self.objects.of(interval) {
                let awaited = waits.objects.entry(awaits).or_default();
                awaited.count += 1;
                awaited.waiting += waiting;
                awaited.reused |= reused;
            }
        }
        site
    }

    /// Adds waiting time of a thread of `pool` that no recorded interval explains.
    pub fn add_unexplained(&mut self, pool: usize, role: Role, waiting_ns: u64, intervals: u64) {
        let frames = self.intern(Vec::new());
        let site = self.number(Key {
            pool,
            role,
            state: State::Unknown,
            reason: Reason::Other,
            label: None,
            task: None,
            stack: StackQuality::Missing,
            frames,
            inferred: false,
        });
        let waits = &mut self.found[site].1;
        waits.count += intervals;
        waits.unexplained += waiting_ns;
    }

    /// The sites in order, with pools numbered by `pool_ids`.
    pub fn finish(self, pool_ids: &[u32]) -> Finished {
        let mut frames: Vec<Vec<Frame>> = vec![Vec::new(); self.by_frames.len()];
        for (stack, number) in self.by_frames {
            frames[number] = stack;
        }
        let (describe, wakers, site_of) = (self.objects, self.wakers, self.by_interval);
        let site = |(key, waits): (Key, Waits)| {
            let mut waiting = waits.waiting;
            waiting.sort_unstable();
            Site {
                pool: pool_ids[key.pool],
                state: key.state,
                reason: key.reason,
                label: key.label.map(str::to_owned),
                task: key.task,
                count: waits.count,
                total_ns: waiting.iter().sum::<u64>() + waits.unexplained,
                max_ns: waiting.last().copied().unwrap_or(0),
                p50_ns: nearest_rank(&waiting, 50),
                p99_ns: nearest_rank(&waiting, 99),
                runnable_ns: waits.runnable,
                stack: key.stack,
                frames: frames[key.frames].clone(),
                role: key.role,
                inferred: key.inferred,
                objects: top(&describe, waits.objects),
                wakers: wakers.of_site(&waits.ended, |index| site_of[index]),
            }
        };
        let mut sites: Vec<(usize, Site)> = self.found.into_iter().map(site).enumerate().collect();
        sites.sort_by(|(_, a), (_, b)| {
            let rest = |site: &Site| (site.pool, site.state, site.reason, site.role, site.stack);
            Reverse(a.total_ns)
                .cmp(&Reverse(b.total_ns))
                .then_with(|| a.frames.cmp(&b.frames))
                .then_with(|| rest(a).cmp(&rest(b)))
                .then_with(|| (&a.label, &a.task).cmp(&(&b.label, &b.task)))
        });
        let mut order = vec![0; sites.len()];
        for (place, (number, _)) in sites.iter().enumerate() {
            order[*number] = place;
        }
        for waker in sites.iter_mut().flat_map(|(_, site)| &mut site.wakers) {
            let sites = waker.chains.iter_mut().flat_map(|chain| &mut chain.sites);
            sites.for_each(|site| *site = order[*site]);
        }
        let of_interval = |site: Option<usize>| site.map(|site| order[site]);
        Finished {
            by_interval: site_of.into_iter().map(of_interval).collect(),
            sites: sites.into_iter().map(|(_, site)| site).collect(),
            order,
        }
    }

    fn site_of(&mut self, pool: usize, role: Role, index: usize, interval: &Interval) -> usize {
        let (user, kernel) = (interval.user_stack, interval.kernel_stack);
        let known = self.by_ids.get(&(user, kernel)).copied();
        let frames = known.unwrap_or_else(|| self.intern(self.stacks.frames(user, kernel)));
        self.by_ids.insert((user, kernel), frames);
        let judged = self.judged;
        let judgement = judged.intervals[index];
        let meaning = judgement.map(|judgement| &judged.meanings[judgement.meaning]);
        self.number(Key {
            pool,
            role,
            state: meaning.map_or(State::Runnable, |meaning| meaning.state),
            reason: judgement.map_or(Reason::Other, |judgement| judgement.reason),
            label: meaning.and_then(|meaning| meaning.label),
            task: meaning.and_then(|meaning| meaning.task.clone()),
            stack: self.stacks.quality(user),
            frames,
            inferred: meaning.is_some_and(|meaning| meaning.inferred),
        })
    }

    fn number(&mut self, key: Key) -> usize {
        if let Some(site) = self.by_key.get(&key) {
            return *site;
        }
        let site = self.found.len();
        self.found.push((key.clone(), Waits::default()));
        self.by_key.insert(key, site);
        site
    }

    fn intern(&mut self, frames: Vec<Frame>) -> usize {
        let next = self.by_frames.len();
        *self.by_frames.entry(frames).or_insert(next)
    }
}

/// The few that most time went to.
fn top(objects: &Objects<'_>, waits: HashMap<Awaits, Awaited>) -> Vec<Object> {
    let mut found: Vec<Object> = waits
        .into_iter()
        .map(|(awaits, Awaited { count, waiting, reused })| Object {
            count,
            total_ns: waiting,
            reused,
            ..objects.describe(awaits)
        })
        .collect();
    found.sort_by(|a, b| Reverse(a.total_ns).cmp(&Reverse(b.total_ns)).then_with(|| a.cmp(b)));
    found.truncate(OBJECTS);
    found
}

/// The nearest-rank percentile: the least value that `percent` of all values do not exceed.
fn nearest_rank(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let check = |sorted: &[u64], percent, expected| {
            assert_eq!(nearest_rank(sorted, percent), expected, "{percent} of {sorted:?}");
        };
        check(&[], 50, 0);
        check(&[7], 50, 7);
        check(&[1, 2, 3, 4], 50, 2);
        check(&[1, 2, 3, 4, 5], 50, 3);
        check(&[1, 2, 3, 4], 99, 4);
        check(&(1..=200).collect::<Vec<_>>(), 99, 198);
    }
}
