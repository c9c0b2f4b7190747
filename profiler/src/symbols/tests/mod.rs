//! Names of code compiled at test time, so that the compilers at hand are what is tested.

#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

mod corrupt;
mod names;
mod places;

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
};

use object::{Object, ObjectSymbol};
use tempfile::TempDir;

use super::{LiveFile, LiveFiles, SymbolOptions, resolve};
use crate::{
    recording::{
        CodeAddress, Counters, Ending, FrameKind, Host, LockFacts, Missing, Module, ModuleId,
        Options, RawFrame, Recording, ResolvedName, Session, StackEnd, Target, UserStack,
        UserStackId,
    },
    units::{Ktime, Nanos, Pid, Svma},
    unwind::elf,
};

const MODULE: ModuleId = ModuleId(7);

/// A directory of freshly built files.
struct Workshop(TempDir);

impl Workshop {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run<S: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) {
        let mut command = Command::new(program);
        // Without it rustc refuses to mangle the old way.
        command.env("RUSTC_BOOTSTRAP", "1");
        let output = command.args(args).current_dir(self.0.path()).output().unwrap();
        assert!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Compiles a fixture with gcc, g++ or rustc into `name`.
    fn build(&self, program: &str, source: &str, name: &str, args: &[&str]) -> PathBuf {
        let source = fixture(source).into_os_string();
        let out = ["-o", name].map(OsStr::new);
        self.run(program, args.iter().map(OsStr::new).chain([source.as_os_str()]).chain(out));
        self.path(name)
    }

    /// `inline.c`, optimized, as `inline`.
    fn inline(&self, args: &[&str]) -> PathBuf {
        self.build("gcc", "inline.c", "inline", &[&["-O2", "-g"], args].concat())
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/symbols").join(name)
}

/// The line of a fixture that carries the comment `line: MARK`.
fn marked_line(source: &str, mark: &str) -> u32 {
    let text = fs::read_to_string(fixture(source)).unwrap();
    let at = text.lines().position(|line| line.contains(&format!("line: {mark}"))).unwrap();
    u32::try_from(at).unwrap() + 1
}

/// The range of the symbol whose mangled name contains `part`.
fn symbol(file: &Path, part: &str) -> Range<u64> {
    let bytes = fs::read(file).unwrap();
    let elf = object::File::parse(&*bytes).unwrap();
    let matching = |symbol: &object::Symbol<'_, '_>| {
        symbol.section_index().is_some() && symbol.name().is_ok_and(|name| name.contains(part))
    };
    let symbol = elf.symbols().chain(elf.dynamic_symbols()).find(matching).unwrap();
    symbol.address()..symbol.address() + symbol.size()
}

/// The module that a recorder would note for a file.
fn module(path: &Path) -> Module {
    let bytes = fs::read(path).unwrap_or_default();
    let build_id = elf::build_id(&*bytes).unwrap_or_default();
    Module { id: MODULE, path: path.to_owned(), build_id, deleted: false }
}

fn live(open: &Path, root: &Path) -> LiveFiles {
    HashMap::from([(MODULE, LiveFile { open: open.to_owned(), root: root.to_owned() })])
}

/// Options with one directory of debug information.
fn debug_dir(dir: PathBuf) -> SymbolOptions {
    SymbolOptions { debug_dirs: vec![dir] }
}

/// A recording of one stack that was interrupted at each of the addresses.
fn recording(module: Module, addresses: impl IntoIterator<Item = u64>) -> Recording {
    let frame = |address| RawFrame {
        address: CodeAddress::Module(MODULE, Svma(address)),
        kind: FrameKind::InstructionPointer,
    };
    let stack = UserStack {
        id: UserStackId(0),
        frames: addresses.into_iter().map(frame).collect(),
        end: StackEnd::Complete,
        by_frame_pointer: 0,
    };
    Recording {
        session: session(),
        threads: Vec::new(),
        modules: HashMap::from([(MODULE, module)]),
        mappings: Vec::new(),
        user_stacks: HashMap::from([(stack.id, stack)]),
        kernel_stacks: HashMap::new(),
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
    }
}

fn session() -> Session {
    Session {
        recorder: String::new(),
        target: Target {
            pid: Pid(1),
            exe: PathBuf::new(),
            command: Vec::new(),
            build_id: Vec::new(),
            container: None,
        },
        host: Host {
            kernel: String::new(),
            arch: String::new(),
            cpus: 1,
            boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap(),
        },
        options: Options { min_block: Nanos(0), children: false, hook: String::new() },
        start: Ktime(0),
        start_unix_ns: 0,
        boot_minus_monotonic: Nanos(0),
    }
}

fn resolve_one(
    module: Module,
    live: &LiveFiles,
    options: &SymbolOptions,
    address: u64,
) -> ResolvedName {
    let table = resolve(&recording(module, [address]), live, options);
    table.get(&CodeAddress::Module(MODULE, Svma(address))).clone()
}

/// The function names at an address, outermost first.
fn functions(name: &ResolvedName) -> Result<Vec<&str>, Missing> {
    match name {
        ResolvedName::Frames(frames) => {
            Ok(frames.iter().map(|frame| frame.function.as_str()).collect())
        }
        ResolvedName::Missing(reason) => Err(*reason),
    }
}

/// Asserts that a function of a module is named, with all that is inlined where its first
/// instruction stands.
fn check(
    module: Module,
    live: &LiveFiles,
    options: &SymbolOptions,
    address: u64,
    expected: Result<&str, Missing>,
) {
    let name = resolve_one(module, live, options, address);
    assert_eq!(functions(&name).map(|names| names[0]), expected, "{name:?}");
}
