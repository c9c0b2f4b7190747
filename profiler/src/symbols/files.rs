//! Finds the files that a module's names can come from, each checked to be of that very build.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use object::{Object, ObjectSection, ReadCache};

use super::{LiveFile, SymbolOptions};
use crate::{
    recording::{Missing, Module},
    unwind::elf,
};

/// Where distributions install separate debug information.
const SYSTEM_DEBUG_DIR: &str = "/usr/lib/debug";

/// An ELF file opened for its symbols. It is read piece by piece and never mapped: a mapped file
/// that somebody truncates kills its reader.
pub struct ElfSource {
    path: PathBuf,
    data: ReadCache<fs::File>,
}

/// A parsed [`ElfSource`].
pub type Elf<'f> = object::File<'f, &'f ReadCache<fs::File>>;

/// What was found of a module; at least one of `binary` and `debug` is there.
#[derive(Default)]
pub struct ModuleFiles {
    /// The file whose code runs.
    pub binary: Option<ElfSource>,
    /// Its separate debug information, looked for if the binary has none in it.
    pub debug: Option<ElfSource>,
    /// What the debug information shares with that of other files (`.gnu_debugaltlink`).
    pub supplement: Option<ElfSource>,
}

impl ElfSource {
    /// Only regular files are opened: a device or a pipe in their place could block or act.
    fn open(path: &Path) -> Option<Self> {
        let regular = fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
        let file = regular.then(|| fs::File::open(path).ok()).flatten()?;
        let source = Self { path: path.to_owned(), data: ReadCache::new(file) };
        source.elf().is_some().then_some(source)
    }

    /// The file, parsed as far as its headers; `None` if they are corrupt.
    pub fn elf(&self) -> Option<Elf<'_>> {
        object::File::parse(&self.data).ok()
    }

    /// Its bytes, read where they are asked for.
    pub fn data(&self) -> &ReadCache<fs::File> {
        &self.data
    }

    fn build_id(&self) -> Option<Vec<u8>> {
        elf::build_id(&self.data)
    }

    fn has_build_id(&self, expected: &[u8]) -> bool {
        expected.is_empty() || self.build_id().as_deref() == Some(expected)
    }

    fn has_debug_info(&self) -> bool {
        self.elf().is_some_and(|elf| has_debug_info(&elf))
    }
}

/// Opens what there is of a module.
///
/// Looks at the live file, else at the module's path in the target's file system, else at the same
/// path on this machine; then for separate debug information, in the user's directories before the
/// system's. A file of another build-id is passed over.
pub fn open(
    module: &Module,
    live: Option<&LiveFile>,
    options: &SymbolOptions,
) -> Result<ModuleFiles, Missing> {
    let root = live.map_or(Path::new("/"), |live| &live.root);
    let mut mismatch = false;
    let mut right_build = |source: &ElfSource| {
        let right = source.has_build_id(&module.build_id);
        mismatch |= !right;
        right
    };
    let binary = binary_candidates(module, live)
        .iter()
        .filter_map(|path| ElfSource::open(path))
        .find(&mut right_build);

    let search = DebugSearch::new(module, binary.as_ref(), root, options);
    let debug = match &binary {
        Some(binary) if binary.has_debug_info() => None,
        binary => search.by_build_id(&mut right_build).or_else(|| search.by_link(binary.as_ref()?)),
    };
    let supplement = debug.as_ref().or(binary.as_ref()).and_then(|main| search.supplement(main));
    match (binary, debug) {
        (None, None) if mismatch => Err(Missing::BuildIdMismatch),
        (None, None) => Err(Missing::FileUnreadable),
        (binary, debug) => Ok(ModuleFiles { binary, debug, supplement }),
    }
}

/// Whether a file has debug information of its own.
pub fn has_debug_info(elf: &Elf<'_>) -> bool {
    elf.section_by_name(".debug_info").is_some_and(|section| section.size() > 0)
}

fn binary_candidates(module: &Module, live: Option<&LiveFile>) -> Vec<PathBuf> {
    let mut candidates = Vec::new();
    candidates.extend(live.map(|live| live.open.clone()));
    // What now lies at the path of an unlinked file is another file; only a build-id can vouch for it.
    let vouched = !module.deleted || !module.build_id.is_empty();
    if vouched && module.path.is_absolute() {
        candidates.extend(live.map(|live| under(&live.root, &module.path)));
        candidates.push(module.path.clone());
    }
    candidates.dedup();
    candidates
}

/// Where a module's separate debug information may lie.
struct DebugSearch<'m> {
    build_id: Vec<u8>,
    module: &'m Path,
    root: &'m Path,
    user_dirs: &'m [PathBuf],
    system_dirs: Vec<PathBuf>,
}

impl<'m> DebugSearch<'m> {
    fn new(
        module: &'m Module,
        binary: Option<&ElfSource>,
        root: &'m Path,
        options: &'m SymbolOptions,
    ) -> Self {
        let build_id = if module.build_id.is_empty() {
            binary.and_then(ElfSource::build_id).unwrap_or_default()
        } else {
            module.build_id.clone()
        };
        let mut system_dirs =
            vec![under(root, Path::new(SYSTEM_DEBUG_DIR)), PathBuf::from(SYSTEM_DEBUG_DIR)];
        system_dirs.dedup();
        Self { build_id, module: &module.path, root, user_dirs: &options.debug_dirs, system_dirs }
    }

    fn dirs(&self) -> impl Iterator<Item = &PathBuf> {
        self.user_dirs.iter().chain(&self.system_dirs)
    }

    fn by_build_id(&self, right_build: impl FnMut(&ElfSource) -> bool) -> Option<ElfSource> {
        let file = build_id_file(&self.build_id)?;
        self.dirs().filter_map(|dir| ElfSource::open(&dir.join(&file))).find(right_build)
    }

    /// A linked file is known by its build-id where both have one (which spares reading all of it),
    /// else by the checksum in the link.
    fn by_link(&self, binary: &ElfSource) -> Option<ElfSource> {
        let (name, checksum) = binary.elf()?.gnu_debuglink().ok()??;
        let name = Path::new(OsStr::from_bytes(name)).file_name()?;
        let dir = self.module.parent().filter(|dir| dir.is_absolute());
        let beside = dir
            .iter()
            .map(|dir| under(self.root, dir))
            .flat_map(|dir| [dir.join(name), dir.join(".debug").join(name)]);
        let user = self.user_dirs.iter().map(|debug_dir| debug_dir.join(name));
        let mirrored = self.dirs().filter_map(|debug_dir| Some(under(debug_dir, dir?).join(name)));
        user.chain(beside)
            .chain(mirrored)
            .filter(|path| *path != binary.path)
            .filter_map(|path| ElfSource::open(&path))
            .find(|candidate| match candidate.build_id() {
                Some(build_id) if !self.build_id.is_empty() => build_id == self.build_id,
                _ => checksum_of(&candidate.path).is_ok_and(|actual| actual == checksum),
            })
    }

    fn supplement(&self, main: &ElfSource) -> Option<ElfSource> {
        let (name, build_id) = main.elf()?.gnu_debugaltlink().ok()??;
        let name = Path::new(OsStr::from_bytes(name));
        let linked = if name.is_absolute() {
            under(self.root, name)
        } else {
            main.path.parent()?.join(name)
        };
        let file = build_id_file(build_id);
        let by_build_id = self.dirs().filter_map(|dir| Some(dir.join(file.as_ref()?)));
        [linked, name.to_owned()]
            .into_iter()
            .filter(|path| path.is_absolute())
            .chain(by_build_id)
            .filter_map(|path| ElfSource::open(&path))
            .find(|candidate| candidate.has_build_id(build_id))
    }
}

/// `.build-id/xx/yyyy.debug`, as debuggers look it up.
fn build_id_file(build_id: &[u8]) -> Option<PathBuf> {
    let hex: Vec<String> = build_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let (first, rest) = hex.split_first().filter(|(_, rest)| !rest.is_empty())?;
    Some(PathBuf::from(format!(".build-id/{first}/{}.debug", rest.concat())))
}

/// An absolute path within another file system root.
fn under(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The checksum that `.gnu_debuglink` states: CRC-32 of the whole file.
fn checksum_of(path: &Path) -> io::Result<u32> {
    struct Sum(crc32fast::Hasher);

    impl io::Write for Sum {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut sum = io::BufWriter::with_capacity(1 << 16, Sum(crc32fast::Hasher::new()));
    io::copy(&mut fs::File::open(path)?, &mut sum)?;
    sum.flush()?;
    let sum = sum.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(sum.0.finalize())
}
