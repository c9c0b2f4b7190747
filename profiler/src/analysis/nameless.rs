//! Which files lack the names that would tell more about waits, and how much waiting that concerns.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use super::{hex, judge::Judged, report::NamelessModule, stacks::Stacks};
use crate::{
    recording::{CodeAddress, ModuleId, Recording, UserStackId},
    runtime::State,
};

/// The files with functions without a name on the stacks of waits that are unknown or inferred, the
/// one that concerns the most time first.
pub fn modules(recording: &Recording, stacks: &Stacks<'_>, judged: &Judged) -> Vec<NamelessModule> {
    let mut on_stacks: HashMap<_, BTreeSet<ModuleId>> = HashMap::new();
    let mut times: BTreeMap<ModuleId, (u64, u64)> = BTreeMap::new();
    for (interval, judgement) in recording.intervals.iter().zip(&judged.intervals) {
        let (Some(judgement), Some(id)) = (judgement, interval.user_stack) else { continue };
        let meaning = &judged.meanings[judgement.meaning];
        let unknown = meaning.state == State::Unknown;
        if !unknown && !meaning.inferred {
            continue;
        }
        let waiting = interval.wake.since(interval.out).0;
        let modules = on_stacks.entry(id).or_insert_with(|| hiding(stacks, id));
        for module in modules.iter() {
            let (inferred_ns, unknown_ns) = times.entry(*module).or_default();
            *if unknown { unknown_ns } else { inferred_ns } += waiting;
        }
    }
    let module = |(id, (inferred_ns, unknown_ns))| {
        let module = recording.modules.get(&id)?;
        Some(NamelessModule {
            module: module.path.to_string_lossy().into_owned(),
            build_id: hex(&module.build_id),
            inferred_ns,
            unknown_ns,
        })
    };
    let mut modules: Vec<_> = times.into_iter().filter_map(module).collect();
    modules.sort_by_key(|module| Reverse(module.inferred_ns + module.unknown_ns));
    modules
}

/// The files whose functions on a stack may hide a runtime.
fn hiding(stacks: &Stacks<'_>, id: UserStackId) -> BTreeSet<ModuleId> {
    let frames = stacks.user(id).map_or(Vec::new(), |stack| stack.frames);
    let module = |address| match address {
        CodeAddress::Module(module, _) => Some(module),
        CodeAddress::Memory(_) | CodeAddress::Kernel(_) => None,
    };
    frames.iter().filter(|frame| frame.hides()).filter_map(|frame| module(frame.address)).collect()
}
