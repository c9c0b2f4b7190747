//! The matrix's own programs: built when what they are made from has changed.

use std::{
    collections::HashMap,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use object::{Object as _, ObjectSymbol as _, SymbolKind};

/// A program or a library, and how it is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Name of the file, the same for no other.
    pub name: &'static str,
    /// What builds it.
    pub compiler: Compiler,
    /// Options, which come after the sources.
    pub options: Vec<&'static str>,
    /// Files of `workloads/cells`; the first one is the program's own.
    pub sources: &'static [&'static str],
    /// Without its symbols and whatever else `strip` takes.
    pub stripped: bool,
}

/// A compiler by the name of its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compiler {
    Gcc,
    Gxx,
    Clang,
    Clangxx,
    Rustc,
}

impl Program {
    /// The file, which is built first if need be. With everything that is linked into it, its name,
    /// options and compiler unchanged, it is the one from before.
    pub fn build(&self) -> PathBuf {
        let one_at_a_time = lock_of(self.name);
        let _held = one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cells");
        fs::create_dir_all(&folder).unwrap();
        let program = folder.join(self.name);
        let key_file = folder.join(format!("{}.key", self.name));
        let key = self.key();
        if fs::read_to_string(&key_file).is_ok_and(|built| built == key) {
            return program;
        }
        let whole = self.whole();
        let mut command = self.compiler.command();
        command.current_dir(sources()).args(self.sources).args(&self.options);
        run(command.arg("-o").arg(&whole));
        if self.stripped {
            run(Command::new("strip").arg("-o").arg(&program).arg(&whole));
        }
        fs::write(key_file, key).unwrap();
        program
    }

    /// The names of its functions by address, from before it was stripped.
    pub fn functions(&self) -> Vec<(std::ops::Range<u64>, String)> {
        let bytes = fs::read(self.whole()).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let functions = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text);
        functions
            .map(|symbol| {
                let range = symbol.address()..symbol.address() + symbol.size();
                (range, symbol.name().unwrap().to_owned())
            })
            .collect()
    }

    /// What has its symbols.
    fn whole(&self) -> PathBuf {
        let suffix = if self.stripped { ".whole" } else { "" };
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("cells").join(format!("{}{suffix}", self.name))
    }

    fn key(&self) -> String {
        let mut hasher = DefaultHasher::new();
        (self.sources, &self.options, self.stripped, self.compiler).hash(&mut hasher);
        self.compiler.version().hash(&mut hasher);
        for source in self.sources {
            fs::read(sources().join(source)).unwrap().hash(&mut hasher);
        }
        for header in ["cell.h", "shapes.h"] {
            fs::read(sources().join(header)).unwrap().hash(&mut hasher);
        }
        format!("{:016x}", hasher.finish())
    }
}

impl Compiler {
    fn command(self) -> Command {
        match self {
            Self::Gcc => Command::new("gcc"),
            Self::Gxx => Command::new("g++"),
            Self::Clang => Command::new("clang-22"),
            Self::Clangxx => Command::new("clang++-22"),
            // Beside the cargo that runs this: it is found without a search path as well.
            Self::Rustc => {
                let cargo = std::env::var_os("CARGO").map(PathBuf::from);
                let rustc = cargo.map(|cargo| cargo.with_file_name("rustc"));
                Command::new(rustc.unwrap_or_else(|| "rustc".into()))
            }
        }
    }

    fn version(self) -> Vec<u8> {
        let mut command = self.command();
        command.arg("--version");
        let output = command.output().unwrap_or_else(|error| {
            panic!("{command:?}: {error}; `cargo xtask setup` installs what is missing")
        });
        output.stdout
    }
}

/// The folder of the sources.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("workloads").join("cells")
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
}

type Locks = HashMap<&'static str, Arc<Mutex<()>>>;

/// Two cells may want the same program at the same time.
fn lock_of(name: &'static str) -> Arc<Mutex<()>> {
    static LOCKS: LazyLock<Mutex<Locks>> = LazyLock::new(Mutex::default);
    Arc::clone(LOCKS.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default())
}
