//! Demangled names of either Rust mangling, brought to one spelling and read.

use super::crates::{CARRIERS, LOCKS};

/// How a closure is spelled after [`normalise`].
pub const CLOSURE: &str = "{{closure}}";

/// One spelling for legacy and v0 names: no hashes, no generic arguments, `<T as Trait>::f` as
/// `T::f`, every kind of closure as `{{closure}}`. Other languages' names come back as they are.
pub fn normalise(name: &str) -> String {
    let name = without_legacy_hash(name.trim());
    let mut out = String::with_capacity(name.len());
    push_path(name, &mut out);
    let segments = out.split("::").filter(|segment| !segment.starts_with("{shim"));
    segments.map(one_segment).collect::<Vec<_>>().join("::")
}

/// [`normalise`], and for a bare name (line tables name inlined functions so) the module that its
/// source file is.
pub fn full_path(name: &str, file: Option<&str>) -> String {
    let path = normalise(name);
    match file.and_then(source_module) {
        Some(module) if !path.contains("::") => format!("{module}::{path}"),
        _ => path,
    }
}

/// `a::b::{{closure}}::{{closure}}` is `a::b`.
pub fn outside_closures(path: &str) -> &str {
    let mut path = path;
    while let Some(outer) = path.strip_suffix(CLOSURE).and_then(|path| path.strip_suffix("::")) {
        path = outer;
    }
    path
}

/// What a path is in, and its last segment.
pub fn split(path: &str) -> (&str, &str) {
    path.rsplit_once("::").unwrap_or(("", path))
}

/// Whether `scope` is `module` or lies in it.
pub fn within(scope: &str, module: &str) -> bool {
    scope.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The crate a path begins with; `None` for a name that is no Rust path.
pub fn crate_of(path: &str) -> Option<&str> {
    path.split_once("::").map(|(first, _)| first)
}

/// The crate, the outermost namespace, or the whole of a plain name.
pub fn first_segment(path: &str) -> &str {
    crate_of(path).unwrap_or(path)
}

/// Whether a path is that of a type parameter, as in `F::poll`: some library's code for all types.
pub fn is_of_any_type(path: &str) -> bool {
    let first = crate_of(path).unwrap_or_default();
    first == "Fut" || (first.len() <= 2 && first.starts_with(|c: char| c.is_ascii_uppercase()))
}

/// Whether a path is Rust code that is neither a runtime's, the standard library's nor a
/// combinator's.
pub fn is_user(path: &str) -> bool {
    crate_of(path).is_some_and(|name| !CARRIERS.contains(&name) && !name.starts_with('{'))
}

/// [`is_user`], leaving out the crates that only wait on behalf of their caller.
pub fn is_user_code(path: &str) -> bool {
    is_user(path) && !crate_of(path).is_some_and(|name| LOCKS.contains(&name))
}

/// `tokio-1.54.1/src/runtime/park.rs` is the source of `tokio::runtime::park`. A package that was
/// not published may have another name than its folder.
pub fn source_module(file: &str) -> Option<String> {
    let (before, _) = file.strip_suffix(".rs")?.rsplit_once("/src/")?;
    let directory = before.rsplit('/').next()?;
    let mut module = published(directory).unwrap_or(directory).replace('-', "_");
    if let Some(path) = module_path(file) {
        module.push_str("::");
        module.push_str(&path);
    }
    Some(module)
}

/// The module that a source file is: with its crate where the file's place tells that for certain,
/// within the crate otherwise. `None` for the root of a crate, and for other languages.
pub fn certain_module(file: &str) -> Option<String> {
    let (before, _) = file.rsplit_once("/src/")?;
    let directory = before.rsplit('/').next()?;
    let certain =
        published(directory).is_some() || before.ends_with(&format!("/library/{directory}"));
    if certain { source_module(file) } else { module_path(file) }
}

/// `runtime::park` for `.../src/runtime/park.rs`; `None` for the root of a crate.
fn module_path(file: &str) -> Option<String> {
    let (_, path) = file.rsplit_once("/src/")?;
    let path = path.strip_suffix(".rs")?;
    let path = path.strip_suffix("/mod").unwrap_or(path);
    (path != "lib" && path != "main").then(|| path.replace('/', "::"))
}

/// The name in `tokio-1.54.1`.
fn published(directory: &str) -> Option<&str> {
    let (name, version) = directory.rsplit_once('-')?;
    version.starts_with(|c: char| c.is_ascii_digit()).then_some(name)
}

/// Drops the `::h0123456789abcdef` of legacy mangling.
fn without_legacy_hash(name: &str) -> &str {
    match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            path
        }
        _ => name,
    }
}

/// Copies a path without generic arguments and crate hashes; a leading `<T as Trait>` becomes `T`.
fn push_path(name: &str, out: &mut String) {
    let name = name
        .trim_start_matches(['&', '*'])
        .trim_start_matches("mut ")
        .trim_start_matches("const ")
        .trim_start_matches("dyn ");
    let mut rest = name;
    if name.starts_with('<')
        && let Some(close) = closing(name)
    {
        let inner = &name[1..close];
        push_path(before_as(inner), out);
        rest = &name[close + 1..];
    }
    while let Some(c) = rest.chars().next() {
        match c {
            '<' => match closing(rest) {
                Some(close) => {
                    if out.ends_with("::") {
                        out.truncate(out.len() - 2);
                    }
                    rest = &rest[close + 1..];
                    continue;
                }
                None => out.push(c),
            },
            '[' => match rest.find(']') {
                Some(end) if end > 1 && rest[1..end].bytes().all(|b| b.is_ascii_hexdigit()) => {
                    rest = &rest[end + 1..];
                    continue;
                }
                _ => out.push(c),
            },
            _ => out.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
}

/// Where the `<` that `text` begins with is closed; the `>` of `->` closes nothing.
pub fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_i32;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' if before != '-' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
        before = c;
    }
    None
}

/// The `T` of `T as Trait`, looking outside of brackets only.
pub fn before_as(inner: &str) -> &str {
    let mut depth = 0_i32;
    for (at, c) in inner.char_indices() {
        match c {
            '<' | '(' | '[' => depth += 1,
            '>' | ')' | ']' => depth -= 1,
            ' ' if depth == 0 && inner[at..].starts_with(" as ") => return &inner[..at],
            _ => {}
        }
    }
    inner
}

/// v0 and DWARF number their closures and call coroutines differently from legacy names.
fn one_segment(segment: &str) -> &str {
    const KINDS: &[&str] = &["{closure", "{async_fn", "{async_block", "{async_closure"];
    let numbered = segment.contains('#') && KINDS.iter().any(|kind| segment.starts_with(kind));
    if numbered { CLOSURE } else { segment.strip_suffix("{{vtable.shim}}").unwrap_or(segment) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_manglings_become_one_spelling() {
        let check = |name: &str, expected: &str| assert_eq!(normalise(name), expected, "{name}");
        check("std[e28293b1aa0f68bd]::thread::functions::sleep", "std::thread::functions::sleep");
        check("tk::h_sleep::{{closure}}::h461517ad34e127bd", "tk::h_sleep::{{closure}}");
        check("tk[77]::h_sleep::{closure#0}", "tk::h_sleep::{{closure}}");
        check("tk::h_sleep::{async_fn_env#0}", "tk::h_sleep::{{closure}}");
        check(
            "<std[e28]::sys::thread::unix::Thread>::new::thread_start",
            "std::sys::thread::unix::Thread::new::thread_start",
        );
        check("<&mut F as core::future::Future>::poll", "F::poll");
        check(
            "<std::net::Incoming as core::iter::Iterator<Item = X>>::next",
            "std::net::Incoming::next",
        );
        check(
            "tokio::runtime::task::core::Core<T,S>::poll::hbe1dbd749f209569",
            "tokio::runtime::task::core::Core::poll",
        );
        check("tokio::runtime::task::raw::poll::<a::b<c>, d>", "tokio::runtime::task::raw::poll");
        check("a::f::<fn(u8) -> u8>::g", "a::f::g");
        check(
            "core::ops::function::impls::<impl FnMut<A> for &mut F>::call_mut",
            "core::ops::function::impls::call_mut",
        );
        check("<T as core[1f]::ops::FnOnce<()>>::call_once::{shim:vtable#0}", "T::call_once");
        check("core::ops::FnOnce::call_once{{vtable.shim}}", "core::ops::FnOnce::call_once");
        check("__pthread_cond_wait", "__pthread_cond_wait");
        check("std::ostream::operator<<", "std::ostream::operator<<");
    }

    #[test]
    fn a_bare_name_gets_its_module_from_its_file() {
        let check = |file: &str, expected: &str| assert_eq!(full_path("run", Some(file)), expected);
        check("/r/tokio-1.54.1/src/runtime/task/mod.rs", "tokio::runtime::task::run");
        check("/rustc/abc/library/std/src/thread/mod.rs", "std::thread::run");
        check("/home/me/my-app/src/main.rs", "my_app::run");
        check("src/main.rs", "run");
    }
}
