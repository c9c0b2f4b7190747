//! How frames are called in pictures and in the summary; the JSON has their names whole.

use crate::{
    analysis::report::{Frame, FrameKind},
    runtime::names::{
        before_as, certain_module, closing, is_of_any_type, normalise, outside_closures,
    },
};

/// The function without generic arguments and without the trait that it is of, or `[module+0xADDR]`
/// where it has no name.
pub fn name(frame: &Frame) -> String {
    if let Some(function) = &frame.function {
        let name = without_trait(&without_arguments(function));
        // Line tables name inlined functions without their module.
        let bare = frame.kind == FrameKind::Inlined && !name.contains("::");
        let module = frame.file.as_deref().filter(|_| bare).and_then(certain_module);
        return module.map_or(name.clone(), |module| format!("{module}::{name}"));
    }
    let module = match (&frame.module, frame.kind) {
        // The file's name says enough in a picture; the JSON has the path.
        (Some(path), _) => path.rsplit('/').next().unwrap_or(path).trim_matches(['[', ']']),
        (None, FrameKind::Kernel) => "kernel",
        (None, _) => "memory",
    };
    let address = frame.address.as_deref().unwrap_or("?");
    format!("[{module}+0x{}]", address.strip_prefix("0x").unwrap_or(address))
}

/// The end of a function's path, which is what people call it: `db::load`, `Cart::total`.
pub fn short_name(frame: &Frame) -> String {
    let Some(function) = &frame.function else { return name(frame) };
    if function.starts_with('{') {
        // A closure whose function is not known has nothing but its line.
        let source = source(frame).unwrap_or_else(|| function.clone());
        return source.rsplit('/').next().unwrap_or(&source).to_owned();
    }
    // What a library has for any type `F` is known by its trait.
    let path = match trait_of_any_type(function) {
        Some(of_trait) => normalise(&of_trait),
        None => normalise(function),
    };
    let path = outside_closures(&path);
    let mut ends = path.rmatch_indices("::").map(|(at, _)| at + 2);
    let start = ends.nth(1).unwrap_or(0);
    path[start..].to_owned()
}

/// `<F as a::Trait>::c` as `a::Trait::c`.
fn trait_of_any_type(function: &str) -> Option<String> {
    let close = closing(function).filter(|_| function.starts_with('<'))?;
    let inner = &function[1..close];
    let of_trait = inner[before_as(inner).len()..].strip_prefix(" as ")?;
    let any = is_of_any_type(&normalise(function));
    any.then(|| format!("{of_trait}{}", &function[close + 1..]))
}

/// Where the source is, as it is found in a checkout: an absolute path begins with the folder of its
/// package.
pub fn source(frame: &Frame) -> Option<String> {
    let file = frame.file.as_deref()?;
    let package = match file.rsplit_once("/src/") {
        Some((before, _)) if file.starts_with('/') => before.rfind('/').map_or(0, |at| at + 1),
        _ => 0,
    };
    let file = &file[package..];
    Some(frame.line.map_or_else(|| file.to_owned(), |line| format!("{file}:{line}")))
}

/// `<a::B as Trait>::c` as `a::B::c`; what a library has for any type keeps its trait.
fn without_trait(name: &str) -> String {
    if let Some(close) = closing(name).filter(|_| name.starts_with('<')) {
        let type_ = before_as(&name[1..close]);
        let path = format!("{type_}{}", &name[close + 1..]);
        let is_path = type_.contains("::") && type_.starts_with(|c: char| c.is_alphabetic());
        if is_path && !type_.starts_with("dyn ") {
            return path;
        }
    }
    name.to_owned()
}

/// `a::B<T>::c::<U>` as `a::B::c`; `<a::B<T> as Trait>::c` as `<a::B as Trait>::c`.
fn without_arguments(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        let operator = out.ends_with("operator") || out.ends_with("operator<");
        let arguments = out.ends_with(|c: char| c.is_alphanumeric() || "_:}".contains(c));
        if c == '<'
            && arguments
            && !operator
            && !rest.starts_with("<impl ")
            && let Some(close) = closing(rest)
        {
            out.truncate(out.strip_suffix("::").unwrap_or(&out).len());
            rest = &rest[close + 1..];
            continue;
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::report::Origin;

    #[test]
    fn names_lose_their_generic_arguments_only() {
        for (name, expected) in [
            (
                "tokio::runtime::task::core::Core<T,S>::poll",
                "tokio::runtime::task::core::Core::poll",
            ),
            ("time<core::result::Result<u64, E>, app::f::{closure_env#2}>", "time"),
            ("{closure#0}<app::f::{async_fn_env#0}, Arc<H>>", "{closure#0}"),
            ("raw::poll::<app::h::{closure#0}, Arc<S>>", "raw::poll"),
            (
                "<app::Cart<Vec<Item>, Map<u64, D>> as app::Total<X>>::total",
                "<app::Cart as app::Total>::total",
            ),
            (
                "app::<impl app::Repo for app::Db<T>>::load",
                "app::<impl app::Repo for app::Db>::load",
            ),
            ("<std::thread::Thread>::park", "<std::thread::Thread>::park"),
            ("a::f::<fn(u8) -> u8>::g", "a::f::g"),
            ("std::vector<int, std::allocator<int>>::push_back", "std::vector::push_back"),
            ("a::operator<", "a::operator<"),
            ("std::operator<<", "std::operator<<"),
            ("a::operator->", "a::operator->"),
            ("JS:~<anonymous> /srv/app.js:3", "JS:~<anonymous> /srv/app.js:3"),
            ("level<9", "level<9"),
        ] {
            assert_eq!(without_arguments(name), expected);
        }
    }

    fn frame(function: &str, file: Option<&str>) -> Frame {
        Frame {
            function: Some(function.to_owned()),
            file: file.map(str::to_owned),
            line: Some(88),
            module: None,
            address: None,
            kind: FrameKind::Native,
            missing: None,
            origin: Origin::Own,
        }
    }

    #[test]
    fn a_method_is_named_by_its_type() {
        for (name, expected) in [
            ("<app::Cart as app::Total>::total", "app::Cart::total"),
            ("<std::thread::Thread>::park", "std::thread::Thread::park"),
            ("<app::Svc as tower::Service>::call::{closure#0}", "app::Svc::call::{closure#0}"),
            ("<F as axum::Handler>::call", "<F as axum::Handler>::call"),
            ("<&mut app::Db as app::Repo>::load", "<&mut app::Db as app::Repo>::load"),
            ("<dyn app::Repo as app::Load>::load", "<dyn app::Repo as app::Load>::load"),
            ("app::load", "app::load"),
        ] {
            assert_eq!(without_trait(name), expected);
        }
    }

    #[test]
    fn inlined_functions_have_the_module_of_their_file() {
        let check = |function: &str, file: &str, expected: &str| {
            let inlined = Frame { kind: FrameKind::Inlined, ..frame(function, Some(file)) };
            assert_eq!(name(&inlined), expected, "{function} {file}");
        };
        let tower = "/r/registry/src/x/tower-http-0.6.1/src/timeout/mod.rs";
        check("poll<F>", tower, "tower_http::timeout::poll");
        check("do_call<F>", "/rustc/59/library/std/src/panicking.rs", "std::panicking::do_call");
        check("{async_fn#0}", "/home/me/shop/src/demo/service.rs", "demo::service::{async_fn#0}");
        check("{async_fn#0}", "/home/me/shop/src/main.rs", "{async_fn#0}");
        check("app::load", "/home/me/shop/src/db.rs", "app::load");
        check("copy", "/build/copy.c", "copy");
    }

    #[test]
    fn people_call_functions_and_files_by_their_ends() {
        let check = |function: &str, expected: &str| {
            assert_eq!(short_name(&frame(function, None)), expected);
        };
        check("orders::db::load", "db::load");
        check("orders::db::load::{{closure}}", "db::load");
        check("<orders::cart::Cart<Vec<Item>> as orders::Total>::total", "Cart::total");
        check("<F as axum::handler::Handler<(M, T), S>>::call::{{closure}}", "Handler::call");
        check("load", "load");
        assert_eq!(short_name(&frame("{closure#0}", Some("/srv/shop/src/db.rs"))), "db.rs:88");
        let check = |file: &str, expected: &str| {
            assert_eq!(source(&frame("f", Some(file))).as_deref(), Some(expected));
        };
        check("src/db.rs", "src/db.rs:88");
        check("crates/db/src/lib.rs", "crates/db/src/lib.rs:88");
        check("/home/ci/build/orders/src/db.rs", "orders/src/db.rs:88");
        check("/build/db.c", "/build/db.c:88");
    }
}
