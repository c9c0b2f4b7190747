//! Compares two eBPF objects in what the verifier sees.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget};

/// One section: its bytes, and where they are completed by the loader and with what.
#[derive(PartialEq, Eq)]
struct Content {
    bytes: Vec<u8>,
    relocations: Vec<(u64, String)>,
}

/// The sections that differ, each with how; empty if the verifier sees the same.
///
/// Code, read-only data and map definitions are compared, symbol tables and BTF are not.
pub fn differences(left: &[u8], right: &[u8]) -> Result<Vec<String>> {
    let left = sections(left).context("cannot read the first object")?;
    let right = sections(right).context("cannot read the second object")?;
    let names: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    Ok(names
        .into_iter()
        .filter_map(|name| {
            let how = match (left.get(name), right.get(name)) {
                (Some(left), Some(right)) if left == right => return None,
                (Some(left), Some(right)) if left.bytes.len() != right.bytes.len() => {
                    format!("{} and {} bytes", left.bytes.len(), right.bytes.len())
                }
                (Some(left), Some(right)) if left.bytes == right.bytes => "relocations".to_owned(),
                (Some(_), Some(_)) => "bytes".to_owned(),
                (Some(_), None) => "only in the first".to_owned(),
                (None, _) => "only in the second".to_owned(),
            };
            Some(format!("{name}: {how}"))
        })
        .collect())
}

fn sections(bytes: &[u8]) -> Result<BTreeMap<String, Content>> {
    let file = object::File::parse(bytes)?;
    let mut sections = BTreeMap::new();
    for section in file.sections() {
        let name = section.name()?;
        let apart = [".debug", ".rel", ".BTF", ".symtab", ".strtab"];
        if name.is_empty() || apart.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let relocations = section
            .relocations()
            .map(|(offset, relocation)| Ok((offset, target(&file, relocation.target())?)))
            .collect::<Result<_>>()?;
        let content = Content { bytes: section.data()?.to_vec(), relocations };
        sections.insert(name.to_owned(), content);
    }
    Ok(sections)
}

/// What a relocation points at: a section, and the place in it. Names of symbols hold hashes that
/// differ from compiler to compiler, except those of maps and globals, which are told by place.
fn target(file: &object::File<'_>, target: RelocationTarget) -> Result<String> {
    let RelocationTarget::Symbol(index) = target else {
        return Ok(format!("{target:?}"));
    };
    let symbol = file.symbol_by_index(index)?;
    let section = match symbol.section_index() {
        Some(index) => file.section_by_index(index)?.name()?.to_owned(),
        None => symbol.name()?.to_owned(),
    };
    Ok(format!("{section}+{}", symbol.address()))
}
