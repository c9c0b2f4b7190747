//! A user stack as the runtime descriptions read it: names, leaf first.

use super::{names, origin::Origin};
use crate::recording::{CodeAddress, StackEnd};

/// Files whose own functions may be nameless without hiding a runtime: the C library's internals
/// are not in its dynamic symbol table, and no runtime lives there.
const C_RUNTIME: &[&str] =
    &["libc.so", "libc-", "libpthread", "ld-linux", "libm.so", "libgcc_s", "[vdso]"];

/// One function on a stack; a function inlined into another has an entry of its own.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Where; inlined functions share the address of the function they are in.
    pub address: CodeAddress,
    /// Name as the symbols give it.
    pub name: Option<String>,
    /// [`names::normalise`]d name, with the module that the source file betrays in front of a bare
    /// one.
    pub path: Option<String>,
    /// Whose code it is.
    pub origin: Origin,
    /// What else is known of its function, where it has no name.
    pub body: Option<Body>,
    /// Whether a frame without a name may hide a runtime.
    hides: bool,
}

/// A function without a name.
#[derive(Clone, Debug)]
pub struct Body {
    /// Where it begins: the same for all its frames.
    pub start: CodeAddress,
    /// The modules whose source files it mentions; `None` for a file that tells none.
    pub mentions: Vec<Option<String>>,
}

impl Body {
    /// A function that begins at `start` and mentions the source `files`.
    pub fn new<'a>(start: CodeAddress, files: impl IntoIterator<Item = &'a str>) -> Self {
        Self { start, mentions: files.into_iter().map(names::source_module).collect() }
    }
}

impl Frame {
    /// A function `name` at `address` in the file `module`, from the source `file`.
    pub fn new(
        address: CodeAddress,
        name: Option<&str>,
        file: Option<&str>,
        module: Option<&str>,
    ) -> Self {
        let path = name.map(|name| names::full_path(name, file));
        let base = module.map(|path| path.rsplit('/').next().unwrap_or(path));
        let c_runtime = base.is_some_and(|base| C_RUNTIME.iter().any(|c| base.starts_with(c)));
        let origin = Origin::of(name, path.as_deref(), file, module);
        let hides = name.is_none() && !c_runtime;
        Self { address, name: name.map(str::to_owned), path, origin, body: None, hides }
    }

    /// Whether it may hide a runtime, for it has no name.
    pub fn hides(&self) -> bool {
        self.hides
    }

    /// Whether this is a function called one of `functions`, or a closure in it, anywhere below
    /// one of `modules`.
    pub fn is(&self, modules: &[&str], functions: &[&str]) -> bool {
        let Some(path) = &self.path else { return false };
        let (scope, function) = names::split(names::outside_closures(path));
        functions.contains(&function) && modules.iter().any(|module| names::within(scope, module))
    }
}

/// A user stack, leaf first.
#[derive(Clone, Debug)]
pub struct Stack<'a> {
    /// The functions, leaf first; an inlined function before the one it is in.
    pub frames: Vec<&'a Frame>,
    /// How the walk ended; the leaf side is right in any case.
    pub end: StackEnd,
}

impl Stack<'_> {
    /// Whether the walk reached the thread's start and no frame on the way may hide a runtime.
    pub fn tells_all(&self) -> bool {
        self.end == StackEnd::Complete
            && !self.frames.is_empty()
            && !self.frames.iter().any(|frame| frame.hides)
    }
}
