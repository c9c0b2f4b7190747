//! The part of a report that was asked for.

use anyhow::Result;

use super::{
    accounts::Account,
    polls::LongPoll,
    report::{AtEnd, HeldSite, Origin, Report, State},
};
use crate::{failure::Failure, runtime::NO_RUNTIME};

/// The part of a report that is asked for; an empty selection is all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only sites of these states; all if `None`.
    pub states: Option<Vec<State>>,
    /// Only pools of these names; all if empty.
    pub pools: Vec<String>,
    /// Only threads of these ids or names; all if empty.
    pub threads: Vec<String>,
    /// From which length on a poll is long.
    pub long_poll: LongPoll,
    /// Pictures show the way to the code that is run, too.
    pub full_stacks: bool,
}

/// The states that a picture shows if nobody says otherwise: the defect, or, where no runtime was
/// recognised and so nothing can be called blocked, everything but idle.
pub fn default_states(report: &Report) -> Vec<State> {
    if report.pools.iter().any(|pool| pool.runtime != NO_RUNTIME) {
        return vec![State::Blocked];
    }
    State::ALL.iter().copied().filter(|state| *state != State::Idle).collect()
}

/// The report with only the sites of `states`; what threads and pools add up to stays.
pub fn select_states(mut report: Report, states: &[State]) -> Report {
    report.states.retain(|state| states.contains(state));
    keep_sites(&mut report, |state, _| states.contains(&state));
    report
}

/// The report without the frames that only lead to the code that is run. Sites stay apart, and what
/// they add up to stays.
pub fn without_plumbing(mut report: Report) -> Report {
    for site in &mut report.sites {
        site.frames.retain(|frame| frame.origin != Origin::Plumbing);
    }
    report
}

impl Selection {
    /// For each account whether its thread is asked for.
    pub(super) fn threads_of(&self, accounts: &[Account]) -> Result<Vec<bool>> {
        let is = |account: &Account, asked: &String| {
            account.name == *asked || account.tid.to_string() == *asked
        };
        for asked in &self.threads {
            if !accounts.iter().any(|account| is(account, asked)) {
                let threads =
                    "the recording is whole, and a report of it as .json lists the threads";
                return Err(
                    Failure::Usage(format!("no thread {asked:?} was recorded; {threads}")).into()
                );
            }
        }
        let wanted = |account: &Account| self.threads.iter().any(|asked| is(account, asked));
        Ok(accounts.iter().map(|account| self.threads.is_empty() || wanted(account)).collect())
    }

    /// Leaves the asked states and pools of a report.
    pub(super) fn apply(&self, mut report: Report) -> Result<Report> {
        for asked in &self.pools {
            if !report.pools.iter().any(|pool| pool.name == *asked) {
                let names: Vec<_> =
                    report.pools.iter().map(|pool| format!("{:?}", pool.name)).collect();
                let names = names.join(", ");
                return Err(Failure::Usage(format!(
                    "no pool {asked:?} was recorded; the recording is whole, and has {names}"
                ))
                .into());
            }
        }
        if !self.pools.is_empty() {
            report.pools.retain(|pool| self.pools.contains(&pool.name));
            let left: Vec<u32> = report.pools.iter().map(|pool| pool.id).collect();
            report.starvation.retain(|window| left.contains(&window.pool));
            report.long_polls.retain(|polls| left.contains(&polls.pool));
            keep_sites(&mut report, |_, pool| left.contains(&pool));
        }
        Ok(match &self.states {
            Some(states) => select_states(report, states),
            None => report,
        })
    }
}

/// Drops sites by state and pool, and keeps what refers to the others right.
fn keep_sites(report: &mut Report, keep: impl Fn(State, u32) -> bool) {
    let mut moved = Vec::with_capacity(report.sites.len());
    let mut kept = 0;
    for site in &report.sites {
        let keeps = keep(site.state, site.pool);
        moved.push(keeps.then_some(kept));
        kept += usize::from(keeps);
    }
    report.sites.retain(|site| keep(site.state, site.pool));
    for waker in report.sites.iter_mut().flat_map(|site| &mut site.wakers) {
        for chain in &mut waker.chains {
            let left = chain.sites.iter().map_while(|site| moved.get(*site).copied().flatten());
            chain.sites = left.collect();
        }
        waker.chains.retain(|chain| !chain.sites.is_empty());
    }
    for thread in report.pools.iter_mut().flat_map(|pool| &mut pool.threads) {
        thread.at_end = thread.at_end.and_then(|at_end| {
            let site = moved.get(at_end.site).copied().flatten()?;
            Some(AtEnd { site, ..at_end })
        });
    }
    let left = |site: usize| moved.get(site).copied().flatten();
    for lock in &mut report.locks {
        lock.sites = lock.sites.iter().filter_map(|site| left(*site)).collect();
        for holder in &mut lock.holders {
            let sites = holder.sites.iter();
            let sites = sites.filter_map(|held| Some(HeldSite { site: left(held.site)?, ..*held }));
            holder.sites = sites.collect();
        }
    }
    report.locks.retain(|lock| !lock.sites.is_empty());
    for thread in report.deadlocks.iter_mut().flat_map(|deadlock| &mut deadlock.threads) {
        thread.site = thread.site.and_then(left);
    }
    for window in &mut report.starvation {
        let held = window.sites.iter().zip(&window.held_ns);
        let left = held.filter_map(|(site, ns)| Some((moved.get(*site).copied().flatten()?, *ns)));
        (window.sites, window.held_ns) = left.unzip();
    }
}
