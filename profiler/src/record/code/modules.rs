//! The files whose code processes map, and what the kernel side knows of each.

use std::{
    collections::HashMap, fs::File, io::Write as _, iter, ops::Range, os::fd::AsRawFd as _,
    path::PathBuf, sync::Arc,
};

use object::read::ReadCache;
use profiler_common::{
    code::{self, MappingCode},
    table::TEXT_PAGE_SHIFT,
};

use super::generations::Mapped;
use crate::{
    kernel::PlacedFile,
    recording::{Module, ModuleId, Record},
    symbols::{LiveFile, LiveFiles},
    target::{self, ExecMapping, MappingKind},
    units::Pid,
    unwind::{CodeFile, CodeIdentity, Table, elf},
};

/// The modules of a recording.
#[derive(Debug, Default)]
pub struct Modules {
    all: Vec<LoadedModule>,
    by_file: HashMap<FileKey, usize>,
}

/// What makes two mappings ones of the same file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum FileKey {
    Inode {
        dev: (u32, u32),
        inode: u64,
    },
    /// Every process sees the same vDSO.
    Vdso,
}

/// A file whose code is mapped.
#[derive(Debug)]
pub struct LoadedModule {
    /// What the recording says of it.
    pub facts: Module,
    /// `None` if the file could not be opened or is no ELF file: its frames are left by frame
    /// pointer.
    pub code: Option<CodeFile>,
    /// What its table is known by on disk.
    pub identity: Option<CodeIdentity>,
    /// Its table in the kernel.
    pub table: TableState,
    /// Held open so that names can be looked up after the file, or the target, is gone.
    file: Option<Arc<File>>,
    root: PathBuf,
}

/// How far a file's table is on its way into the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableState {
    /// It has none: no ELF file, or one without unwind information that keeps frame pointers.
    None,
    /// Nobody has asked for it yet.
    Unbuilt,
    /// It is being made.
    Building,
    /// It is there.
    Placed(PlacedFile),
    /// It cannot be there: the file could not be opened, or there is no room.
    Refused,
}

impl LoadedModule {
    /// What makes its table, on any thread; `None` if it has none.
    pub fn table_maker(&self) -> Option<impl FnOnce() -> Table + Send + use<>> {
        let (code, file) = (self.code.clone()?, self.file.clone()?);
        Some(move || code.complete_table(&ReadCache::new(&*file)))
    }
}

impl Modules {
    /// The module that a mapping shows, entered if it is new; `None` for memory that is no file.
    /// `facts` takes what is new.
    pub fn of(
        &mut self,
        pid: Pid,
        mapping: &ExecMapping,
        facts: &mut Vec<Record>,
    ) -> Option<ModuleId> {
        let key = match mapping.kind {
            MappingKind::File => FileKey::Inode { dev: mapping.dev, inode: mapping.inode },
            MappingKind::Vdso => FileKey::Vdso,
            MappingKind::Anonymous | MappingKind::Other => return None,
        };
        let known = self.by_file.get(&key).copied();
        if let Some(index) = known.filter(|&index| self.all[index].file.is_some()) {
            return Some(ModuleId(index as u32));
        }
        // One that could not be opened is tried again: it may have been in the middle of an exec.
        let file = match mapping.kind {
            MappingKind::Vdso => vdso(pid, mapping),
            _ => target::open_mapped(pid, mapping).ok(),
        };
        let file = file.map(Arc::new);
        if let (Some(index), None) = (known, &file) {
            return Some(ModuleId(index as u32));
        }
        let index = known.unwrap_or(self.all.len());
        let bytes = file.as_deref().map(ReadCache::new);
        let bytes = bytes.as_ref();
        let code = bytes.and_then(|bytes| CodeFile::parse(bytes).ok());
        // Others' files could say that they are a file that they are not: what was made of them is
        // kept for nobody.
        let is_trusted = file.as_deref().is_some_and(target::only_we_can_write);
        let identity = code.as_ref().and(bytes).and_then(elf::code_identity).filter(|_| is_trusted);
        let build_id = bytes.and_then(elf::build_id).unwrap_or_default();
        let facts_of_it = Module {
            id: ModuleId(index as u32),
            path: mapping.path.clone(),
            build_id,
            deleted: mapping.deleted,
        };
        facts.push(Record::Module(facts_of_it.clone()));
        let table = match (&file, &code) {
            (None, _) => TableState::Refused,
            (Some(_), None) => TableState::None,
            (Some(_), Some(_)) => TableState::Unbuilt,
        };
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        let loaded = LoadedModule { facts: facts_of_it, code, identity, table, file, root };
        match known {
            Some(index) => self.all[index] = loaded,
            None => self.all.push(loaded),
        }
        self.by_file.insert(key, index);
        Some(ModuleId(index as u32))
    }

    /// A module that was entered.
    pub fn get(&self, id: ModuleId) -> &LoadedModule {
        &self.all[id.0 as usize]
    }

    /// A module that was entered.
    pub fn get_mut(&mut self, id: ModuleId) -> &mut LoadedModule {
        &mut self.all[id.0 as usize]
    }

    /// Every module.
    pub fn iter(&self) -> impl Iterator<Item = &LoadedModule> {
        self.all.iter()
    }

    /// How many files could not be opened.
    pub fn unreadable(&self) -> u64 {
        self.all.iter().filter(|module| module.file.is_none()).count() as u64
    }

    /// The files that are held open, as paths for this process.
    pub fn live_files(&self) -> LiveFiles {
        self.all
            .iter()
            .filter_map(|module| {
                let open = format!("/proc/self/fd/{}", module.file.as_ref()?.as_raw_fd());
                let live = LiveFile { open: open.into(), root: module.root.clone() };
                Some((module.facts.id, live))
            })
            .collect()
    }

    /// A mapping as the kernel side walks through it; nothing for the `vsyscall` page, whose address is
    /// not one of user memory: the kernel side compares numbers with a sign.
    pub fn for_kernel(&self, mapped: &Mapped) -> Vec<code::Mapping> {
        let &Mapped { ref mapping, bias, module } = mapped;
        let range = mapping.start.0..mapping.end.0;
        if range.end > code::ADDRESSES_END {
            return Vec::new();
        }
        let table = module.map_or(&TableState::None, |module| &self.get(module).table);
        match table {
            TableState::Placed(file) => through_table(range, bias, file),
            TableState::None => vec![without_table(range, MappingCode::FramePointer)],
            TableState::Unbuilt | TableState::Building | TableState::Refused => {
                vec![without_table(range, MappingCode::Absent)]
            }
        }
    }
}

/// A mapping of a file that has a table. What lies outside of the file's text pages is code that
/// nothing describes, as is a gap inside of them.
fn through_table(range: Range<u64>, bias: u64, file: &PlacedFile) -> Vec<code::Mapping> {
    let pages = file.first_page..file.first_page + file.pages.len() as u64;
    let text = pages.start << TEXT_PAGE_SHIFT..pages.end << TEXT_PAGE_SHIFT;
    let start = range.start.wrapping_sub(bias);
    // Where in the mapping the text begins and ends.
    let inside =
        |address: u64| range.start + address.saturating_sub(start).min(range.end - range.start);
    let (text_start, text_end) = (inside(text.start), inside(text.end));
    let table = code::Mapping {
        start: text_start,
        end: text_end,
        bias,
        page_base: file.page_base(),
        code: MappingCode::Table as u32,
    };
    let around = [range.start..text_start, text_end..range.end];
    let [before, after] = around.map(|range| without_table(range, MappingCode::FramePointer));
    iter::once(before).chain([table, after]).filter(|mapping| mapping.start < mapping.end).collect()
}

fn without_table(range: Range<u64>, code: MappingCode) -> code::Mapping {
    let Range { start, end } = range;
    code::Mapping { start, end, bias: 0, page_base: 0, code: code as u32 }
}

/// The vDSO is an ELF file that lies nowhere but in memory.
fn vdso(pid: Pid, mapping: &ExecMapping) -> Option<File> {
    let bytes = mapping.end.0 - mapping.start.0;
    let image = target::read_memory(pid, mapping.start, bytes).ok()?;
    let fd = rustix::fs::memfd_create("vdso", rustix::fs::MemfdFlags::CLOEXEC).ok()?;
    let mut file = File::from(fd);
    file.write_all(&image).ok()?;
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIAS: u64 = 0x7f00_0000_0000;

    #[test]
    fn a_mapping_is_walked_by_table_where_the_file_has_text_pages() {
        // Text pages 2 to 4, which are entries 100 to 102.
        let file = PlacedFile { first_page: 2, pages: 100..103 };
        let check = |range: Range<u64>, bias: u64, expected: &[(Range<u64>, bool)]| {
            let mappings = through_table(range, bias, &file);
            let found: Vec<_> = mappings
                .iter()
                .map(|mapping| {
                    let by_table = mapping.code == MappingCode::Table as u32;
                    if by_table {
                        let page = (mapping.start.wrapping_sub(bias) >> TEXT_PAGE_SHIFT) as u32;
                        assert!(file.pages.contains(&mapping.page_base.wrapping_add(page)));
                    }
                    (mapping.start..mapping.end, by_table)
                })
                .collect();
            assert_eq!(found, expected);
        };

        let at = |start: u64, end: u64| BIAS + start..BIAS + end;
        check(at(0x2_1000, 0x4_3000), BIAS, &[(at(0x2_1000, 0x4_3000), true)]);
        check(
            at(0x1000, 0x6_0000),
            BIAS,
            &[
                (at(0x1000, 0x2_0000), false),
                (at(0x2_0000, 0x5_0000), true),
                (at(0x5_0000, 0x6_0000), false),
            ],
        );
        check(at(0x1000, 0x1_0000), BIAS, &[(at(0x1000, 0x1_0000), false)]);
        check(at(0x7_0000, 0x8_0000), BIAS, &[(at(0x7_0000, 0x8_0000), false)]);
        // Not position-independent, and one whose addresses are higher in the file than in memory.
        check(0x2_0000..0x3_0000, 0, &[(0x2_0000..0x3_0000, true)]);
        check(0x1000..0x2000, 0_u64.wrapping_sub(0x2_0000), &[(0x1000..0x2000, true)]);
    }
}
