//! The code ranges that a symbol table of one ELF file states.

use std::{cmp::Reverse, ops::Range};

use object::{
    Object, ObjectSection, ObjectSymbol, ObjectSymbolTable, ReadRef, SectionFlags, SectionIndex,
    SymbolFlags, SymbolIndex,
    elf::{SHF_EXECINSTR, STB_GLOBAL, STB_WEAK, STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE},
};

use super::demangle;

/// Which of a file's two symbol tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// `.symtab`, which lists every function.
    Static,
    /// `.dynsym`, which lists what is imported and exported.
    Dynamic,
}

/// Symbols of code, each with the range for which its name is the truth.
///
/// A name holds within the symbol's size and nowhere else: the nearest symbol before an address is
/// mostly another function's. A symbol without a size (assembly) holds up to the next symbol of its
/// section, if it stands outside all symbols that have one, and only in `.symtab`: in the sparse
/// `.dynsym` the next symbol is too far away.
pub struct Ranges<'e, 'd, R: ReadRef<'d>> {
    elf: &'e object::File<'d, R>,
    kind: TableKind,
    sized: Vec<Symbol>,
    /// For each of `sized`, the greatest end up to and including it.
    reach: Vec<u64>,
    sizeless: Vec<Symbol>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Symbol {
    start: u64,
    end: u64,
    index: usize,
}

impl<'e, 'd, R: ReadRef<'d>> Ranges<'e, 'd, R> {
    /// Reads a symbol table, but none of its names.
    pub fn new(elf: &'e object::File<'d, R>, kind: TableKind) -> Self {
        let code: Vec<(SectionIndex, Range<u64>)> = elf
            .sections()
            .filter(|section| match section.flags() {
                SectionFlags::Elf { sh_flags } => sh_flags & u64::from(SHF_EXECINSTR) != 0,
                _ => false,
            })
            .map(|section| {
                let start = section.address();
                (section.index(), start..start.saturating_add(section.size()))
            })
            .collect();
        let section_of = |symbol: &object::Symbol<'d, '_, R>| {
            let index = symbol.section_index()?;
            let (_, range) = code.iter().find(|(section, _)| *section == index)?;
            range.contains(&symbol.address()).then_some(range)
        };
        let symbols = match kind {
            TableKind::Static => elf.symbols(),
            TableKind::Dynamic => elf.dynamic_symbols(),
        };

        let (mut sized, mut sizeless, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        for symbol in symbols {
            let Some(section) = section_of(&symbol) else { continue };
            let start = symbol.address();
            starts.push(start);
            if !matches!(type_and_binding(&symbol).0, STT_FUNC | STT_GNU_IFUNC | STT_NOTYPE) {
                continue;
            }
            let index = symbol.index().0;
            let end = start.saturating_add(symbol.size()).min(section.end);
            if end > start {
                sized.push(Symbol { start, end, index });
            } else if kind == TableKind::Static {
                sizeless.push(Symbol { start, end: section.end, index });
            }
        }

        sized.sort_unstable();
        let reach = sized
            .iter()
            .scan(0, |reach, symbol| {
                *reach = symbol.end.max(*reach);
                Some(*reach)
            })
            .collect();
        let mut ranges = Self { elf, kind, sized, reach, sizeless: Vec::new() };

        starts.sort_unstable();
        sizeless.retain(|symbol| ranges.covering(symbol.start).is_empty());
        for symbol in &mut sizeless {
            let next = starts.partition_point(|start| *start <= symbol.start);
            symbol.end = starts.get(next).map_or(symbol.end, |start| symbol.end.min(*start));
        }
        sizeless.sort_unstable();
        ranges.sizeless = sizeless;
        ranges
    }

    /// Whether there is any name in it.
    pub fn is_empty(&self) -> bool {
        self.sized.is_empty() && self.sizeless.is_empty()
    }

    /// The mangled name of the innermost symbol whose size covers an address.
    pub fn sized(&self, address: u64) -> Option<&'d str> {
        self.best_name(self.covering(address))
    }

    /// The mangled name of the symbol without a size that stands before an address.
    pub fn sizeless(&self, address: u64) -> Option<&'d str> {
        let after = self.sizeless.partition_point(|symbol| symbol.start <= address);
        let start = self.sizeless[..after].last()?.start;
        let first = self.sizeless.partition_point(|symbol| symbol.start < start);
        let here = &self.sizeless[first..after];
        self.best_name(if here.iter().all(|symbol| address < symbol.end) { here } else { &[] })
    }

    /// All symbols of the innermost range around an address: one function's aliases. Those of equal
    /// start but smaller size, if they end before the address, are not among them.
    fn covering(&self, address: u64) -> &[Symbol] {
        let after = self.sized.partition_point(|symbol| symbol.start <= address);
        let innermost = (0..after)
            .rev()
            .take_while(|&at| self.reach[at] > address)
            .find(|&at| self.sized[at].end > address);
        let Some(last) = innermost else { return &[] };
        let start = self.sized[last].start;
        let first = (0..=last)
            .rev()
            .take_while(|&at| self.sized[at].start == start && self.sized[at].end > address)
            .last();
        &self.sized[first.unwrap_or(last)..=last]
    }

    /// Of one function's names the one people write: `read`, not `__GI___libc_read`.
    fn best_name(&self, aliases: &[Symbol]) -> Option<&'d str> {
        let table = match self.kind {
            TableKind::Static => self.elf.symbol_table(),
            TableKind::Dynamic => self.elf.dynamic_symbol_table(),
        }?;
        aliases
            .iter()
            .filter_map(|alias| {
                let symbol = table.symbol_by_index(SymbolIndex(alias.index)).ok()?;
                let name = symbol.name().ok().filter(|name| !name.is_empty())?;
                let (kind, binding) = type_and_binding(&symbol);
                let global = matches!(binding, STB_GLOBAL | STB_WEAK);
                Some((preference(name, kind == STT_FUNC, global), name))
            })
            .max_by_key(|(preference, _)| *preference)
            .map(|(_, name)| name)
    }
}

/// Orders the names of one function; the greatest is shown. A total order, so that the same file
/// always gives the same name.
pub fn preference(name: &str, function: bool, global: bool) -> impl Ord + Copy + use<'_> {
    let underscores = name.len() - name.trim_start_matches('_').len();
    let plain = demangle::without_version(name);
    (function, Reverse(underscores), global, Reverse(plain.len()), Reverse(name))
}

fn type_and_binding<'d, R: ReadRef<'d>>(symbol: &object::Symbol<'d, '_, R>) -> (u8, u8) {
    match symbol.flags() {
        SymbolFlags::Elf { st_info, .. } => (st_info & 0xf, st_info >> 4),
        _ => (0, 0),
    }
}
