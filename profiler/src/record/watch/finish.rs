//! The end of a recording: the window is closed, what is left is taken, and the file is finished.

use std::{collections::HashMap, path::PathBuf, time::Instant};

use anyhow::Result;
use profiler_common::counter::Counter;

use super::{
    super::{
        Outcome,
        collect::Collector,
        cost,
        events::{self, tolerate},
        request::ring_bytes,
        window,
    },
    Run,
};
use crate::{
    kernel,
    recording::{
        Counters, End, EndReason, Ending, LockFacts, Record, Recording, Session, file::WriteError,
    },
    symbols::{self, SymbolOptions},
    target,
    terminal::say,
    units::Nanos,
};

impl Run<'_> {
    /// Closes the window, takes what is left, detaches, and finishes the file.
    pub(super) async fn finish(
        mut self,
        reason: EndReason,
        throttle: Option<(target::Throttle, Nanos)>,
    ) -> Result<Outcome> {
        let end = window::close(&mut self.programs, self.session.start).await?;
        if let Some(objects) = &mut self.collector.objects {
            objects.ask_again(Nanos(0));
        }
        let ring_bytes = ring_bytes(self.plan);
        let ring = self.events.get_mut();
        events::take_all(ring, &mut self.collector, ring_bytes)?;
        self.collector.forget_roll_call();
        let sweep_begun = Instant::now();
        let visited = self.programs.roll_call().and_then(|roll_call| {
            events::take_during(roll_call, ring, &mut self.collector)?;
            events::take_all(ring, &mut self.collector, ring_bytes)?;
            match self.programs.sweep()? {
                Some(sweep) => {
                    events::take_during(sweep, ring, &mut self.collector)?;
                    events::take_all(ring, &mut self.collector, ring_bytes)
                }
                None => Ok(()),
            }
        });
        let swept_in = sweep_begun.elapsed();
        if let Err(error) = visited {
            say(&format!("warning: {error:#}; waits open at the end may lack their stacks"));
        }
        tolerate(self.collector.look_at_locks())?;
        let states = self.programs.threads()?;
        let mut usage = kernel::usage::usage().unwrap_or_default();
        usage.map_bytes += self.collector.code.kernel_bytes();
        for (counter, count) in self.programs.counters()? {
            self.collector.add(counter, count);
        }
        self.collector.add(Counter::ProgramMisses, usage.misses);
        let Self { plan, programs, events, told: _, mut collector, mut session, begun } = self;
        drop(events);
        drop(programs);

        let command_began = begun || collector.has_execed(session.target.pid);
        if !begun {
            if let Some(program) = plan.command.first().filter(|_| command_began) {
                // It ended before it could be looked at.
                session.target.exe = PathBuf::from(program);
                session.target.command =
                    plan.command.iter().map(|part| part.to_string_lossy().into_owned()).collect();
                session.target.build_id.clear();
            }
            tolerate(collector.begin(session.clone()))?;
        }
        let end = collector
            .close(states, end, plan.min_block)
            .or_else(|refused| tolerate(Err::<(), _>(refused)).map(|()| end))?;
        tolerate(append_names(&mut collector, session, &plan.symbols))?;
        tolerate(collector.finish_objects())?;
        if let Some(checker) = collector.checker.take() {
            tolerate(collector.append(Record::StackCheck(checker.finish())))?;
        }
        let counters = Counter::ALL
            .iter()
            .map(|&counter| (counter.name().to_owned(), collector.lost(counter)))
            .collect();
        tolerate(collector.append(Record::Counters(Counters(counters))))?;
        let throttled = throttle.and_then(|(throttle, before)| {
            Some(Nanos(throttle.read()?.0.saturating_sub(before.0)))
        });
        let observer = cost::observer(&usage, plan.bpf_stats)?;
        let (writer, _files) = collector.into_parts();
        writer.finish(End { end, reason, observer, throttled })?;
        Ok(Outcome { reason, target_ran: command_began, swept_in })
    }
}

/// Looks up every name while the target may still live.
fn append_names(
    collector: &mut Collector,
    session: Session,
    symbols: &SymbolOptions,
) -> Result<(), WriteError> {
    let (user_stacks, kernel_stacks) = (collector.stacks.all_user(), collector.stacks.all_kernel());
    let stacks = Recording {
        session,
        threads: Vec::new(),
        modules: collector.code.modules().map(|module| (module.id, module.clone())).collect(),
        mappings: Vec::new(),
        user_stacks,
        kernel_stacks,
        intervals: Vec::new(),
        totals: Vec::new(),
        counters: Counters::default(),
        names: HashMap::new(),
        open_since: Vec::new(),
        sampling: None,
        samples: Vec::new(),
        nameless: Vec::new(),
        stack_check: None,
        objects: HashMap::new(),
        looks: Vec::new(),
        wakers: HashMap::new(),
        locks: LockFacts::default(),
        ending: Ending::Unfinished { offset: 0 },
    };
    let names = symbols::resolve(&stacks, &collector.code.live_files(), symbols);
    collector.append(Record::Names(symbols::names(&names)))?;
    let mut nameless = names.all_nameless().cloned();
    nameless.try_for_each(|function| collector.append(Record::Nameless(function)))
}
