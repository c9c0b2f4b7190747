//! The unwind tables of a file or of a process, printed.

use std::{
    collections::HashSet,
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use object::read::ReadCache;

use crate::{
    cache::{Origin, TableCache},
    render::{count, share, time},
    target::{self, ExecMapping, MappingKind},
    terminal::printable,
    units::Pid,
    unwind::{CodeFile, CodeIdentity, Table, elf},
};

/// How many of the places without unwind information are printed.
const UNCOVERED_SHOWN: usize = 8;

/// Code that a process has mapped, or that a file has.
#[derive(Debug)]
pub struct Code {
    /// Its file, or the kernel's name for what is no file.
    pub name: String,
    /// How many bytes it has.
    pub bytes: u64,
    /// Its table, or why it has none.
    pub tabled: Result<Tabled, String>,
}

/// A table that was made or found.
#[derive(Debug)]
pub struct Tabled {
    /// The table.
    pub table: Table,
    /// Whether it was made now.
    pub origin: Origin,
    /// How long that took.
    pub took: Duration,
}

/// The table of a program or library.
pub fn of_file(path: &Path, cache: &TableCache) -> anyhow::Result<Code> {
    let cannot = || format!("cannot make a table of {}", path.display());
    let file = File::open(path).with_context(cannot)?;
    let code = read(file).with_context(cannot)?;
    Ok(tabled(path.display().to_string(), &code, cache))
}

/// The tables of everything that a process has mapped executable, in order of its addresses.
pub fn of_process(pid: Pid, cache: &TableCache) -> anyhow::Result<Vec<Code>> {
    let mappings = target::mappings(pid)?;
    let mut seen = HashSet::new();
    let is_new = |mapping: &&ExecMapping| {
        mapping.kind != MappingKind::File || seen.insert((mapping.dev, mapping.inode))
    };
    Ok(mappings.iter().filter(is_new).map(|mapping| of_mapping(pid, mapping, cache)).collect())
}

fn of_mapping(pid: Pid, mapping: &ExecMapping, cache: &TableCache) -> Code {
    let bytes = mapping.end.0 - mapping.start.0;
    let name = match (mapping.kind, mapping.path.as_os_str().is_empty()) {
        (MappingKind::Anonymous, true) => "anonymous memory".to_owned(),
        _ => mapping.path.display().to_string(),
    };
    let code = match mapping.kind {
        MappingKind::File => {
            target::open_mapped(pid, mapping).context("cannot be opened").and_then(read)
        }
        MappingKind::Vdso => target::read_memory(pid, mapping.start, bytes)
            .context("cannot be read")
            .and_then(|image| {
                let identity = elf::code_identity(image.as_slice());
                Ok((CodeFile::parse(image.as_slice())?, identity))
            }),
        MappingKind::Anonymous | MappingKind::Other => Err(anyhow::anyhow!("not a file")),
    };
    match code {
        Ok(code) => tabled(name, &code, cache),
        Err(error) => Code { name, bytes, tabled: Err(format!("{error:#}")) },
    }
}

/// What a table is made of, and what it is known by.
type Parsed = (CodeFile, Option<CodeIdentity>);

fn read(file: File) -> anyhow::Result<Parsed> {
    let bytes = ReadCache::new(file);
    Ok((CodeFile::parse(&bytes)?, elf::code_identity(&bytes)))
}

fn tabled(name: String, (code, identity): &Parsed, cache: &TableCache) -> Code {
    let bytes = code.text().iter().map(|range| range.end.0 - range.start.0).sum();
    let start = Instant::now();
    let (table, origin) = cache.table(identity.as_ref(), || code.table());
    Code { name, bytes, tabled: Ok(Tabled { table, origin, took: start.elapsed() }) }
}

/// Prints tables, and their sum if they are several.
pub fn describe(modules: &[Code], out: &mut dyn Write) -> anyhow::Result<()> {
    for code in modules {
        writeln!(out, "{}", printable(&code.name))?;
        match &code.tabled {
            Ok(tabled) => module(code.bytes, tabled, out)?,
            Err(why) => {
                writeln!(out, "  text         {} bytes", count(code.bytes))?;
                writeln!(out, "  table        none: {}", printable(why))?;
            }
        }
    }
    if modules.len() > 1 {
        total(modules, out)?;
    }
    Ok(())
}

fn module(text: u64, tabled: &Tabled, out: &mut dyn Write) -> anyhow::Result<()> {
    let Tabled { table, origin, took } = tabled;
    let uncovered = uncovered(table);
    writeln!(
        out,
        "  text         {} bytes, {} of them ({}) without unwind information",
        count(text),
        count(uncovered),
        share(uncovered, text)
    )?;
    writeln!(out, "  functions    {} described", count(table.described))?;
    let (rows, rules, pages) = (table.rows.len(), table.rules.len(), table.pages.len());
    writeln!(
        out,
        "  table        {} rows, {} rules, {} pages",
        count(rows as u64),
        count(rules as u64),
        count(pages as u64)
    )?;
    size(table.bytes(), text, out)?;
    let how = match origin {
        Origin::Made => "built in",
        Origin::Kept => "cached, in",
    };
    writeln!(out, "  {how:12} {}", elapsed(*took))?;
    for (kind, found) in table.unsupported.iter() {
        let (rows, bytes) = (count(found.rows), count(found.bytes));
        writeln!(out, "  unsupported  {}: rows {rows}, bytes {bytes}", kind.name())?;
    }
    let mut gaps = table.uncovered.iter().collect::<Vec<_>>();
    gaps.sort_by_key(|gap| std::cmp::Reverse(gap.end.0 - gap.start.0));
    for gap in gaps.iter().take(UNCOVERED_SHOWN) {
        let bytes = count(gap.end.0 - gap.start.0);
        writeln!(out, "  uncovered    {:#x} to {:#x}, {bytes} bytes", gap.start.0, gap.end.0)?;
    }
    if let Some(more) = gaps.get(UNCOVERED_SHOWN..).filter(|more| !more.is_empty()) {
        writeln!(out, "  uncovered    {} smaller ones", count(more.len() as u64))?;
    }
    Ok(())
}

fn total(modules: &[Code], out: &mut dyn Write) -> anyhow::Result<()> {
    let tables = || {
        modules.iter().filter_map(|code| {
            let Tabled { table, took, .. } = code.tabled.as_ref().ok()?;
            Some((code.bytes, table, *took))
        })
    };
    let text = tables().map(|(text, ..)| text).sum();
    let uncovered = tables().map(|(_, table, _)| uncovered(table)).sum();
    writeln!(out, "in all")?;
    writeln!(
        out,
        "  text         {} bytes, {} of them ({}) without unwind information",
        count(text),
        count(uncovered),
        share(uncovered, text)
    )?;
    let rows = tables().map(|(_, table, _)| table.rows.len() as u64).sum();
    writeln!(out, "  table        {} rows", count(rows))?;
    let bytes = tables().map(|(_, table, _)| table.bytes()).sum();
    size(bytes, text, out)?;
    writeln!(out, "  loaded in    {}", elapsed(tables().map(|(.., took)| took).sum()))?;
    Ok(())
}

fn elapsed(took: Duration) -> String {
    time(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX))
}

fn size(bytes: u64, text: u64, out: &mut dyn Write) -> anyhow::Result<()> {
    let per_mb = bytes as f64 / text.max(1) as f64 * 1000.0;
    writeln!(out, "  size         {} bytes, {per_mb:.1} KB per MB of text", count(bytes))?;
    Ok(())
}

fn uncovered(table: &Table) -> u64 {
    table.uncovered.iter().map(|gap| gap.end.0 - gap.start.0).sum()
}
