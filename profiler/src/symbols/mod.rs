//! Addresses to names, inline frames kept. Never drops a frame: absence is data.
//!
//! `files` finds and checks the files a module's names can come from, `ranges` is the symbol table
//! of one of them, `native` joins symbol tables and debug information, `kernel` reads the running
//! kernel's symbols, `demangle` makes names readable, `mentions` says what there is to say of a function
//! without a name.

mod demangle;
mod files;
mod kernel;
mod mentions;
mod native;
mod ranges;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
};

use crate::{
    recording::{
        CodeAddress, FrameKind, KernelStack, Missing, ModuleId, NamelessFunction, Names, RawFrame,
        Recording, ResolvedName,
    },
    units::{Avma, Svma},
};

/// Where to look for names besides the modules themselves.
#[derive(Clone, Debug, Default)]
pub struct SymbolOptions {
    /// Directories of separate debug information, searched before the system's own.
    pub debug_dirs: Vec<PathBuf>,
}

/// Files of modules that a recorder holds open.
pub type LiveFiles = HashMap<ModuleId, LiveFile>;

/// A module's file while the target lives: deleted files, files of other mount namespaces and the
/// vDSO can be read through it.
#[derive(Clone, Debug)]
pub struct LiveFile {
    /// A path that opens the very file that is mapped, such as `/proc/self/fd/N`.
    pub open: PathBuf,
    /// Prefix of the target's own file system: `/proc/PID/root`, or `/`.
    pub root: PathBuf,
}

/// What stands at each looked-up address of a recording.
#[derive(Clone, Debug, Default)]
pub struct SymbolTable {
    names: HashMap<CodeAddress, ResolvedName>,
    /// By where they begin.
    nameless: BTreeMap<(ModuleId, Svma), NamelessFunction>,
}

impl SymbolTable {
    /// What stands at a looked-up address (see [`lookup_address`]); a reason if nothing is known.
    pub fn get(&self, address: &CodeAddress) -> &ResolvedName {
        static NO_FILE: ResolvedName = ResolvedName::Missing(Missing::NotInFile);
        static NO_SYMBOL: ResolvedName = ResolvedName::Missing(Missing::NoSymbolHere);
        self.names.get(address).unwrap_or(match address {
            CodeAddress::Memory(_) => &NO_FILE,
            CodeAddress::Module(..) | CodeAddress::Kernel(_) => &NO_SYMBOL,
        })
    }

    /// The function at a looked-up address that has no name, where that could be told.
    pub fn nameless(&self, address: &CodeAddress) -> Option<&NamelessFunction> {
        let CodeAddress::Module(module, svma) = *address else { return None };
        if matches!(self.names.get(address), Some(ResolvedName::Frames(_))) {
            return None;
        }
        let (_, function) = self.nameless.range(..=(module, svma)).next_back()?;
        (function.module == module && svma < function.end).then_some(function)
    }

    /// All functions without a name, in order of address.
    pub fn all_nameless(&self) -> impl Iterator<Item = &NamelessFunction> {
        self.nameless.values()
    }

    /// All names of the table, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&CodeAddress, &ResolvedName)> {
        self.names.iter()
    }

    /// The names that the recorder resolved, and no others. Does no I/O.
    pub fn from_recording(recording: &Recording) -> Self {
        let nameless = recording.nameless.iter().cloned();
        let mut table = Self { names: recording.names.clone(), nameless: BTreeMap::new() };
        table.extend(nameless);
        table
    }

    /// A second search that finds nothing does not replace the reason of the first, which was
    /// nearer to the target.
    fn add(&mut self, address: CodeAddress, name: ResolvedName) {
        match name {
            ResolvedName::Frames(_) => {
                self.names.insert(address, name);
            }
            ResolvedName::Missing(_) => {
                self.names.entry(address).or_insert(name);
            }
        }
    }
}

impl FromIterator<(CodeAddress, ResolvedName)> for SymbolTable {
    fn from_iter<I: IntoIterator<Item = (CodeAddress, ResolvedName)>>(names: I) -> Self {
        Self { names: names.into_iter().collect(), nameless: BTreeMap::new() }
    }
}

impl Extend<NamelessFunction> for SymbolTable {
    fn extend<I: IntoIterator<Item = NamelessFunction>>(&mut self, functions: I) {
        let functions = functions.into_iter();
        self.nameless
            .extend(functions.map(|function| ((function.module, function.start), function)));
    }
}

/// The address at which a frame's name is looked up: one byte before a return address (the call,
/// which may be the last instruction of its function or of its line), the address itself otherwise.
///
/// Nothing else subtracts this byte.
pub fn lookup_address(frame: &RawFrame) -> CodeAddress {
    let back = match frame.kind {
        FrameKind::InstructionPointer => 0,
        FrameKind::ReturnAddress => 1,
    };
    match frame.address {
        CodeAddress::Module(module, svma) => {
            CodeAddress::Module(module, Svma(svma.0.saturating_sub(back)))
        }
        CodeAddress::Memory(avma) => CodeAddress::Memory(Avma(avma.0.saturating_sub(back))),
        CodeAddress::Kernel(avma) => CodeAddress::Kernel(Avma(avma.0.saturating_sub(back))),
    }
}

/// The looked-up addresses of a kernel stack, leaf first.
pub fn kernel_lookup_addresses(stack: &KernelStack) -> impl Iterator<Item = CodeAddress> {
    stack.frames.iter().map(|&address| {
        lookup_address(&RawFrame {
            address: CodeAddress::Kernel(address),
            kind: FrameKind::ReturnAddress,
        })
    })
}

/// Names every address of every stack of a recording, and looks at the functions of those that
/// stay without a name.
///
/// Names that the recording already has are kept; only what it lacks is looked up, in the files of
/// `live` where there are any, else on this machine as far as build-ids agree. Reads files and
/// `/proc`; never fails: what cannot be named says why.
pub fn resolve(recording: &Recording, live: &LiveFiles, options: &SymbolOptions) -> SymbolTable {
    let mut table = SymbolTable::from_recording(recording);
    let mut in_modules = BTreeMap::<ModuleId, BTreeSet<Svma>>::new();
    let mut in_kernel = BTreeSet::new();

    let user_addresses =
        recording.user_stacks.values().flat_map(|stack| &stack.frames).map(lookup_address);
    let kernel_addresses = recording.kernel_stacks.values().flat_map(kernel_lookup_addresses);
    for address in user_addresses.chain(kernel_addresses) {
        if matches!(table.names.get(&address), Some(ResolvedName::Frames(_))) {
            continue;
        }
        match address {
            CodeAddress::Module(module, svma) => {
                in_modules.entry(module).or_default().insert(svma);
            }
            CodeAddress::Kernel(avma) => {
                in_kernel.insert(avma);
            }
            CodeAddress::Memory(_) => table.add(address, ResolvedName::Missing(Missing::NotInFile)),
        }
    }

    // One module after the other, so that only one module's debug information is in memory.
    for (id, addresses) in in_modules {
        let files = match recording.modules.get(&id) {
            Some(module) => files::open(module, live.get(&id), options),
            None => Err(Missing::FileUnreadable),
        };
        let names = match &files {
            Ok(files) => native::names(files, &addresses),
            Err(reason) => vec![ResolvedName::Missing(*reason); addresses.len()],
        };
        let mut unnamed = BTreeSet::new();
        for (svma, name) in addresses.into_iter().zip(names) {
            if matches!(name, ResolvedName::Missing(_)) {
                unnamed.insert(svma);
            }
            table.add(CodeAddress::Module(id, svma), name);
        }
        if let Some(binary) = files.ok().and_then(|files| files.binary) {
            table.extend(mentions::functions(&binary, id, &unnamed));
        }
    }
    if !in_kernel.is_empty() {
        let names = kernel::names(&recording.session.host.boot_id, &in_kernel);
        for (avma, name) in in_kernel.into_iter().zip(names) {
            table.add(CodeAddress::Kernel(avma), name);
        }
    }
    table
}

/// The table as a record for a recording, in order of address.
pub fn names(table: &SymbolTable) -> Names {
    let mut names: Vec<_> = table.iter().map(|(address, name)| (*address, name.clone())).collect();
    names.sort_unstable_by_key(|(address, _)| *address);
    Names { names }
}
