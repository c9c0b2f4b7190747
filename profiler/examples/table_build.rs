//! What tables of real files cost to make and to read from the cache, against what gimli alone takes to
//! go over the same rows.
//!
//! `table_build RESULTS.json FILE...`, run by `cargo xtask bench tables`.

use std::{
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use gimli::{
    BaseAddresses, CieOrFde, DebugFrame, EhFrame, EndianSlice, LittleEndian, UnwindContext,
    UnwindSection,
};
use object::{Object as _, ObjectSection as _};
use serde_json::{Value, json};
use stallscope::{
    cache::{Origin, TableCache},
    unwind::{CodeFile, elf},
};

/// How often each way is measured, the ways in turn; the median counts.
const ROUNDS: usize = 15;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let results = arguments.next().context("no file for the results")?;
    println!(
        "{:28} {:>8} {:>9} {:>9} {:>9} {:>8} {:>6} {:>9} {:>6}",
        "file", "text MB", "rows", "gimli ms", "table ms", "ms / MB", "ratio", "cached ms", "ratio"
    );
    let measured = arguments.map(|file| measure(&file)).collect::<Result<Vec<_>>>()?;
    let measured = json!({ "rounds": ROUNDS, "files": measured });
    fs::write(&results, serde_json::to_string_pretty(&measured)? + "\n")
        .with_context(|| format!("cannot write {}", results.display()))
}

fn measure(path: &Path) -> Result<Value> {
    let cannot = || format!("cannot measure {}", path.display());
    let bytes = fs::read(path).with_context(cannot)?;
    let code = CodeFile::parse(bytes.as_slice()).with_context(cannot)?;
    let sections = Sections::of(&bytes).with_context(cannot)?;
    let text = code.text().iter().map(|range| range.end.0 - range.start.0).sum::<u64>();
    let folder = tempfile::tempdir()?;
    let cache = TableCache::in_folder(Some(folder.path().to_owned()));
    let identity = elf::code_identity(bytes.as_slice());
    let expected = cache.table(identity.as_ref(), || code.table()).0;
    let (mut parsing, mut building, mut reading) = (Vec::new(), Vec::new(), Vec::new());
    let mut gimli_rows = 0;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        gimli_rows = black_box(sections.rows().with_context(cannot)?);
        parsing.push(start.elapsed());
        let start = Instant::now();
        let table = black_box(code.table());
        building.push(start.elapsed());
        drop(table);
        let start = Instant::now();
        let (table, origin) = cache.table(identity.as_ref(), || code.table());
        if origin == Origin::Kept {
            reading.push(start.elapsed());
        }
        ensure!(table == expected, "{}: another table each time", path.display());
    }
    ensure!(gimli_rows > 0, "{}: no unwind information", path.display());
    let rows = expected.rows.len();
    let (gimli, table) = (median(parsing), median(building));
    let cached = (!reading.is_empty()).then(|| median(reading));
    let megabytes = text as f64 / 1e6;
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let ratio = table.as_secs_f64() / gimli.as_secs_f64();
    print!(
        "{name:28.28} {megabytes:8.1} {rows:9} {:9.2} {:9.2} {:8.2} {ratio:6.2}",
        milliseconds(gimli),
        milliseconds(table),
        milliseconds(table) / megabytes,
    );
    match cached {
        Some(cached) => {
            let ratio = cached.as_secs_f64() / gimli.as_secs_f64();
            println!(" {:9.3} {ratio:6.3}", milliseconds(cached));
        }
        None => println!(" {:>9}", "not kept"),
    }
    Ok(json!({
        "file": name, "text_bytes": text, "rows": rows, "gimli_rows": gimli_rows,
        "gimli_ns": gimli.as_nanos() as u64, "table_ns": table.as_nanos() as u64,
        "cached_ns": cached.map(|cached| cached.as_nanos() as u64),
    }))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The same bytes that tables are made of.
#[derive(Default)]
struct Sections<'data> {
    eh_frame: &'data [u8],
    debug_frame: Vec<u8>,
    bases: BaseAddresses,
}

impl<'data> Sections<'data> {
    fn of(bytes: &'data [u8]) -> Result<Self> {
        let file = object::File::parse(bytes)?;
        let mut sections = Self::default();
        if let Some(section) = file.section_by_name(".eh_frame") {
            sections.eh_frame = section.data()?;
            sections.bases = sections.bases.set_eh_frame(section.address());
        }
        if let Some(section) = file.section_by_name(".text") {
            sections.bases = sections.bases.set_text(section.address());
        }
        if let Some(section) = file.section_by_name(".debug_frame") {
            sections.debug_frame = section.uncompressed_data()?.into_owned();
        }
        Ok(sections)
    }

    /// How many rows gimli finds.
    fn rows(&self) -> gimli::Result<u64> {
        let mut eh_frame = EhFrame::new(self.eh_frame, LittleEndian);
        eh_frame.set_address_size(8);
        let mut debug_frame = DebugFrame::new(&self.debug_frame, LittleEndian);
        debug_frame.set_address_size(8);
        Ok(rows_of(&eh_frame, &self.bases)? + rows_of(&debug_frame, &self.bases)?)
    }
}

fn rows_of<'data, S>(section: &S, bases: &BaseAddresses) -> gimli::Result<u64>
where
    S: UnwindSection<EndianSlice<'data, LittleEndian>>,
{
    let mut context = UnwindContext::new();
    let mut entries = section.entries(bases);
    let mut rows = 0;
    while let Some(entry) = entries.next()? {
        let CieOrFde::Fde(partial) = entry else { continue };
        let function = partial.parse(S::cie_from_offset)?;
        let mut table = function.rows(section, bases, &mut context)?;
        while let Some(row) = table.next_row()? {
            black_box(row.cfa());
            rows += 1;
        }
    }
    Ok(rows)
}
