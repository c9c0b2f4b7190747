//! Any stage, printed: what the tool sees before it forms an opinion.

pub mod programs;
pub mod tables;

use std::{io::Write, path::PathBuf};

use crate::{
    cache::TableCache,
    cli::Inspect,
    recording::{
        Ending, Interval, Names, Part, Recording, StackEnd, Why, Woken, facts::Record, file,
    },
    render::{count, time},
    report, target,
    terminal::printable,
    units::{Ktime, Nanos, Pid},
};

/// `stallscope inspect`.
pub fn run(what: &Inspect) -> anyhow::Result<()> {
    match what {
        Inspect::Target { pid } => {
            let description = target::describe(Pid(*pid))?;
            report::print(|out| Ok(writeln!(out, "{}", description.trim_end())?))
        }
        Inspect::Tables { pid, file } => {
            let cache = TableCache::open();
            let modules = match (pid, file) {
                (Some(pid), _) => tables::of_process(Pid(*pid), &cache)?,
                (None, file) => {
                    let of_file = |file: &PathBuf| tables::of_file(file, &cache);
                    file.iter().map(of_file).collect::<Result<_, _>>()?
                }
            };
            report::print(|out| tables::describe(&modules, out))
        }
        Inspect::Programs => {
            let programs = programs::of_this_kernel()?;
            report::print(|out| programs::print(&programs, out))
        }
        Inspect::Recording { file } => {
            let recording = file::read(file)?;
            report::print(|out| describe(&recording, out))
        }
        Inspect::Events { file } => {
            let recording = file::read(file)?;
            report::print(|out| events(&recording, out))
        }
    }
}

/// Prints what a recording holds.
pub fn describe(recording: &Recording, out: &mut dyn Write) -> anyhow::Result<()> {
    session(recording, out)?;
    counts(recording, out)?;
    threads(recording, out)?;
    modules(recording, out)?;
    writeln!(out, "counters")?;
    for (name, n) in &recording.counters.0 {
        writeln!(out, "  {name:24} {}", count(*n))?;
    }
    match &recording.ending {
        Ending::Finished(end) => {
            writeln!(out, "finished: {:?} after {}", end.reason, since_start(recording, end.end))?;
            let cost = end.observer;
            writeln!(
                out,
                "  recorder: {} CPU, {} bytes resident, {} bytes of kernel maps",
                time(cost.cpu.0),
                count(cost.max_rss_bytes),
                count(cost.kernel_map_bytes)
            )?;
            let measured =
                |nanos: Option<Nanos>| nanos.map_or("not read".to_owned(), |n| time(n.0));
            writeln!(out, "  kernel programs: {}", measured(cost.bpf))?;
            writeln!(out, "  cgroup throttled: {}", measured(end.throttled))?;
        }
        Ending::Unfinished { offset } => {
            writeln!(out, "unfinished: whole up to byte {}", count(*offset))?;
        }
    }
    Ok(())
}

fn session(recording: &Recording, out: &mut dyn Write) -> anyhow::Result<()> {
    let session = &recording.session;
    let (target, host, options) = (&session.target, &session.host, &session.options);
    writeln!(out, "recorder   stallscope {}", session.recorder)?;
    writeln!(out, "target     pid {}: {}", target.pid, printable(&target.exe.to_string_lossy()))?;
    writeln!(out, "  command    {}", printable(&target.command.join(" ")))?;
    writeln!(out, "  build-id   {}", build_id(&target.build_id))?;
    writeln!(out, "  container  {}", target.container.as_deref().unwrap_or("none"))?;
    let (kernel, arch, cpus, boot) = (&host.kernel, &host.arch, host.cpus, &host.boot_id);
    writeln!(out, "host       kernel {kernel}, {arch}, {cpus} CPUs, boot {boot}")?;
    let (min_block, children) = (time(options.min_block.0), options.children);
    writeln!(out, "options    min-block {min_block}, children {children}, hook {}", options.hook)?;
    writeln!(
        out,
        "start      {} ns since the epoch, monotonic {} ns, boot clock ahead by {} ns",
        session.start_unix_ns, session.start, session.boot_minus_monotonic
    )?;
    Ok(())
}

fn counts(recording: &Recording, out: &mut dyn Write) -> anyhow::Result<()> {
    let stacks = || recording.user_stacks.values();
    let complete = stacks().filter(|stack| stack.end == StackEnd::Complete).count();
    let lacking = |part: Part| {
        let lacks = |end| matches!(end, StackEnd::Incomplete(why) if Why::part(why) == part);
        count(stacks().filter(|stack| lacks(stack.end)).count() as u64)
    };
    let preempted = recording.intervals.iter().filter(|interval| interval.preempted).count();
    writeln!(
        out,
        "intervals  {}, of them {} preempted",
        count(recording.intervals.len() as u64),
        count(preempted as u64)
    )?;
    writeln!(
        out,
        "stacks     {} user ({} complete, {} truncated, {} broken), {} kernel",
        count(recording.user_stacks.len() as u64),
        count(complete as u64),
        lacking(Part::Truncated),
        lacking(Part::Broken),
        count(recording.kernel_stacks.len() as u64)
    )?;
    writeln!(
        out,
        "names      {}, mappings {}",
        count(recording.names.len() as u64),
        count(recording.mappings.len() as u64)
    )?;
    Ok(())
}

fn threads(recording: &Recording, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(
        out,
        "threads    {} named, {} accounted for",
        recording.threads.len(),
        recording.totals.len()
    )?;
    for thread in &recording.totals {
        writeln!(
            out,
            "  {}/{} {:15} +{} to +{}: running {}, runnable {}, waiting {}, short {}; {} switches",
            thread.pid,
            thread.tid,
            printable(&thread.name),
            since_start(recording, thread.from),
            since_start(recording, thread.to),
            time(thread.running.0),
            time(thread.runnable.0),
            time(thread.waiting.0),
            time(thread.short.0),
            count(thread.switches)
        )?;
    }
    if recording.totals.is_empty() {
        for thread in &recording.threads {
            writeln!(out, "  {}/{} {}", thread.pid, thread.tid, printable(&thread.name))?;
        }
    }
    Ok(())
}

fn modules(recording: &Recording, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "modules    {}", recording.modules.len())?;
    for module in sorted(recording.modules.values(), |module| module.id) {
        let deleted = if module.deleted { " (deleted)" } else { "" };
        writeln!(
            out,
            "  {:3} {}{deleted}, build-id {}",
            module.id.0,
            printable(&module.path.to_string_lossy()),
            build_id(&module.build_id)
        )?;
    }
    Ok(())
}

/// Prints every record as one JSON object a line, each kind in order of time or number.
pub fn events(recording: &Recording, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut line = |record: &Record| -> anyhow::Result<()> {
        serde_json::to_writer(&mut *out, record)?;
        Ok(out.write_all(b"\n")?)
    };
    line(&Record::Session(recording.session.clone()))?;
    for thread in &recording.threads {
        line(&Record::Thread(thread.clone()))?;
    }
    for module in sorted(recording.modules.values(), |module| module.id) {
        line(&Record::Module(module.clone()))?;
    }
    for mapping in &recording.mappings {
        line(&Record::Mapping(mapping.clone()))?;
    }
    for stack in sorted(recording.user_stacks.values(), |stack| stack.id) {
        line(&Record::UserStack(stack.clone()))?;
    }
    for stack in sorted(recording.kernel_stacks.values(), |stack| stack.id) {
        line(&Record::KernelStack(stack.clone()))?;
    }
    for interval in &recording.intervals {
        let Interval { pid, tid, wake: at, .. } = *interval;
        if let Some(waker) = interval.waker {
            line(&Record::Woken(Woken { at, pid, tid, waker }))?;
        }
        line(&Record::Interval(interval.clone()))?;
    }
    for since in &recording.open_since {
        line(&Record::OpenSince(*since))?;
    }
    if let Some(sampling) = recording.sampling {
        line(&Record::Sampling(sampling))?;
    }
    for sample in &recording.samples {
        line(&Record::Sample(*sample))?;
    }
    for object in sorted(recording.objects.values(), |object| object.id) {
        line(&Record::Object(object.clone()))?;
    }
    for look in &recording.looks {
        line(&Record::Look(*look))?;
    }
    for (id, waker) in sorted(&recording.wakers, |(id, _)| **id) {
        line(&Record::Waker(*id, waker.clone()))?;
    }
    for futex in &recording.locks.futexes {
        line(&Record::Futex(*futex))?;
    }
    for reference in &recording.locks.references {
        line(&Record::Reference(*reference))?;
    }
    for search in &recording.locks.searches {
        line(&Record::Search(*search))?;
    }
    for totals in &recording.totals {
        line(&Record::Totals(totals.clone()))?;
    }
    line(&Record::Counters(recording.counters.clone()))?;
    for (address, name) in sorted(&recording.names, |(address, _)| **address) {
        line(&Record::Names(Names { names: vec![(*address, name.clone())] }))?;
    }
    for function in &recording.nameless {
        line(&Record::Nameless(function.clone()))?;
    }
    if let Some(check) = &recording.stack_check {
        line(&Record::StackCheck(check.clone()))?;
    }
    if let Ending::Finished(end) = &recording.ending {
        line(&Record::End(end.clone()))?;
    }
    Ok(())
}

fn sorted<T, K: Ord>(items: impl IntoIterator<Item = T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut items = items.into_iter().collect::<Vec<_>>();
    items.sort_by_key(|item| key(item));
    items
}

fn since_start(recording: &Recording, at: Ktime) -> String {
    time(at.since(recording.session.start).0)
}

fn build_id(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut hex = String::new();
    for byte in bytes {
        write!(hex, "{byte:02x}").expect("a String takes every write");
    }
    if hex.is_empty() { "none".to_owned() } else { hex }
}
