//! Places: sites that a reader would take for one.

use std::cmp::Reverse;

use crate::{
    analysis::{
        Report,
        report::{Frame, FrameKind, Origin, Reason, Site, State},
    },
    render::names,
    runtime::names::{is_user_code, normalise},
};

/// The same line of own code, waiting for the same thing, reached by several ways.
pub struct Spot<'report> {
    /// Never empty; the first has the most time.
    pub sites: Vec<&'report Site>,
    /// Their time.
    pub ns: u64,
    /// The function to look at, if there is any.
    pub place: Option<&'report Frame>,
    /// Where the program's own code begins, if that is another function.
    pub outermost: Option<&'report Frame>,
}

impl Spot<'_> {
    fn shows_as(&self, other: &Self) -> bool {
        let shown = |frame: Option<&Frame>| {
            frame.map(|frame| (names::name(frame), frame.file.clone(), frame.line))
        };
        let (a, b) = (self.sites[0], other.sites[0]);
        (a.pool, a.role, a.state, a.reason) == (b.pool, b.role, b.state, b.reason)
            && (&a.label, &a.task) == (&b.label, &b.task)
            && shown(self.place) == shown(other.place)
            && shown(self.outermost) == shown(other.outermost)
    }

    /// What people call the function.
    pub fn short_name(&self) -> String {
        match self.place {
            Some(frame) => names::short_name(frame),
            None => "[no stack]".to_owned(),
        }
    }

    /// What the threads waited for.
    pub fn awaited(&self) -> String {
        awaited(self.sites[0])
    }
}

/// The spots of sites by index, each with the time that counts for it; largest first, none without
/// time.
pub fn spots(report: &Report, timed: impl IntoIterator<Item = (usize, u64)>) -> Vec<Spot<'_>> {
    let mut timed: Vec<_> = timed.into_iter().filter(|(_, ns)| *ns > 0).collect();
    timed.sort_by_key(|(site, ns)| (Reverse(*ns), *site));
    let mut spots: Vec<Spot<'_>> = Vec::new();
    for (site, ns) in timed {
        let Some(site) = report.sites.get(site) else { continue };
        let (place, outermost) = places(site);
        let spot = Spot { sites: vec![site], ns, place, outermost };
        match spots.iter_mut().find(|known| place.is_some() && known.shows_as(&spot)) {
            Some(known) => {
                known.sites.push(site);
                known.ns += ns;
            }
            None => spots.push(spot),
        }
    }
    spots.sort_by_key(|spot| Reverse(spot.ns));
    spots
}

/// The function to look at, of one site.
pub fn place(site: &Site) -> Option<&Frame> {
    places(site).0
}

/// The deepest frame of own code, and the outermost one if it is another.
///
/// Without own code the deepest frame that may be own code stands in, then the deepest of a library
/// that calls user code, into which that may have been inlined, then the deepest with a name.
pub fn places(site: &Site) -> (Option<&Frame>, Option<&Frame>) {
    // Where a task blocks on a future, the line that asks for it is the one to look at.
    let asks = |frame: &&Frame| !names::name(frame).contains("block_on");
    let mut own = site.frames.iter().filter(|frame| frame.origin == Origin::Own).filter(asks);
    if let Some(outermost) = own.next() {
        return match own.next_back() {
            Some(deepest) => (Some(deepest), Some(outermost)),
            None => (Some(outermost), None),
        };
    }
    let user = || site.frames.iter().filter(|frame| frame.kind != FrameKind::Kernel);
    let place = user()
        .rfind(|frame| frame.origin == Origin::Unknown)
        .or_else(|| user().rfind(|frame| calls_user_code(frame)))
        .or_else(|| user().rfind(|frame| frame.function.is_some()))
        .or_else(|| user().next_back())
        .or_else(|| site.frames.last());
    (place, None)
}

fn calls_user_code(frame: &Frame) -> bool {
    frame.function.as_deref().is_some_and(|function| is_user_code(&normalise(function)))
}

/// What the threads of a site waited for: what the stack says, else what the kernel was asked.
pub fn awaited(site: &Site) -> String {
    if site.state == State::Runnable {
        return "waiting for a CPU".to_owned();
    }
    let reason = match site.reason {
        Reason::Sleep => "sleeping",
        Reason::Futex => "waiting for another thread",
        Reason::Socket => "waiting for a socket",
        Reason::Pipe => "waiting for a pipe",
        Reason::File => "waiting for a file or terminal",
        Reason::Disk => "waiting for the disk",
        Reason::Poll => "waiting for file descriptors",
        Reason::PageFault => "waiting for a page of memory",
        Reason::Process => "waiting for a process",
        Reason::Ipc => "waiting for IPC",
        Reason::Stopped => "stopped or traced",
        Reason::Other => "waiting in the kernel",
    };
    match site.label.as_deref() {
        None => reason.to_owned(),
        Some("mutex") => "waiting for a mutex".to_owned(),
        Some("rwlock") => "waiting for a read-write lock".to_owned(),
        Some("condvar") => "waiting for a condition variable".to_owned(),
        Some("channel") => "waiting for a channel".to_owned(),
        Some("join") => "waiting for a thread to end".to_owned(),
        Some("dns") => "waiting for a name to be resolved".to_owned(),
        Some("sync-over-async") => "blocking on a future".to_owned(),
        Some(label) => format!("{reason} ({label})"),
    }
}
