//! Who ended the waits at a place, in words.

use std::cmp::Reverse;

use super::spots::{self, Spot};
use crate::{
    analysis::{
        Report,
        report::{Chain, Waker},
    },
    render::{names, quantity::share},
};

/// Wakers of a place that are named.
const NAMED: usize = 3;

/// What ended less than this part of a place's waiting time is not named: a twentieth.
const MINOR: u64 = 20;

/// What a waker waited for itself is told from this part of the time on: a half.
const NOTABLE: u64 = 2;

/// The waits of a place that one ended.
struct Ended<'a> {
    who: String,
    ns: u64,
    chain: Option<&'a Chain>,
}

/// `woken by db-writer (4712), 92.0 %, after it waited in write_row; by a timer, 8.0 %`, where that
/// is known of most of the time.
pub fn of(report: &Report, spot: &Spot<'_>) -> Option<String> {
    let waiting: u64 = spot.sites.iter().map(|site| site.total_ns).sum();
    let mut all: Vec<Ended<'_>> = Vec::new();
    for waker in spot.sites.iter().flat_map(|site| &site.wakers) {
        let (who, chain) = (who(waker), waker.chains.first());
        match all.iter_mut().find(|known| known.who == who) {
            Some(known) => {
                known.ns += waker.total_ns;
                let longer = |chain: &&Chain| {
                    known.chain.is_none_or(|known| known.total_ns < chain.total_ns)
                };
                known.chain = chain.filter(longer).or(known.chain);
            }
            None => all.push(Ended { who, ns: waker.total_ns, chain }),
        }
    }
    all.retain(|ended| ended.ns * MINOR >= waiting && ended.ns > 0);
    all.sort_by(|a, b| Reverse(a.ns).cmp(&Reverse(b.ns)).then_with(|| a.who.cmp(&b.who)));
    let words = all.iter().take(NAMED).map(|ended| {
        let after = ended.chain.filter(|chain| chain.total_ns * NOTABLE >= ended.ns);
        let after = after.and_then(|chain| waited_in(report, chain));
        let after = after.map_or_else(String::new, |place| format!(", after it waited in {place}"));
        format!("by {}, {}{after}", ended.who, share(ended.ns, waiting))
    });
    let words = words.collect::<Vec<_>>().join("; ");
    (!words.is_empty()).then(|| format!("woken {words}"))
}

fn who(waker: &Waker) -> String {
    match (waker.kind, waker.tid) {
        ("timer", _) => "a timer".to_owned(),
        ("network", _) => "the network".to_owned(),
        ("disk", _) => "a disk".to_owned(),
        ("thread", Some(tid)) => thread(waker, tid),
        (_, Some(tid)) => format!("{} or an interrupt", thread(waker, tid)),
        _ => "an interrupt".to_owned(),
    }
}

/// `db-writer (4712)`, `worker (4712) of postgres`.
fn thread(waker: &Waker, tid: u32) -> String {
    let name = waker.name.as_deref().unwrap_or_default();
    match &waker.process {
        Some(process) if process != name => format!("{name} ({tid}) of {process}"),
        _ => format!("{name} ({tid})"),
    }
}

/// `write_row`, `write_row and before that read_page`: where the first waits of a chain were.
fn waited_in(report: &Report, chain: &Chain) -> Option<String> {
    let places = chain.sites.iter().map_while(|site| {
        let site = report.sites.get(*site)?;
        spots::place(site).map(names::short_name)
    });
    let mut places: Vec<_> = places.collect();
    places.dedup();
    (!places.is_empty()).then(|| places.join(", which was after "))
}
