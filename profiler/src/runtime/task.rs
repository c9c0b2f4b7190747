//! What a task is called: its future's or closure's type, as its author would point at it.

use super::{
    names::{self, CLOSURE, before_as, closing, outside_closures},
    origin::Origin,
    plumbing::{self, Row},
    stack::Frame,
};

/// Functions whose first generic argument is what is run.
pub type Carriers = &'static [Row];

/// What is being run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// A future.
    Future,
    /// A closure on a blocking pool.
    Closure,
}

/// The name of what the outermost of `frames`, leaf first, runs: by the type that one of `carriers`
/// was made for, else by the outermost function of the user's that it called.
///
/// A library's future (a server's connection) says less than the user's function inside it, so that
/// is asked for first.
pub fn name(frames: &[&Frame], job: Job, carriers: Carriers) -> Option<String> {
    let called = || frames.iter().rev();
    let names = called()
        .take_while(|frame| !is_own_function(frame))
        .filter(|frame| frame.path.as_deref().is_some_and(|path| carries(path, carriers)))
        .filter_map(|frame| frame.name.as_deref());
    let types: Vec<_> = names.filter_map(first_type).collect();
    if let Some(own) = types.iter().find(|name| is_own(name)) {
        return Some(readable(own, job));
    }
    let own = called().find_map(|frame| {
        if is_own_function(frame) { Some(of_frame(frame, job)) } else { function_of_library(frame) }
    });
    if own.is_some() {
        return own;
    }
    if let Some(library) = types.first() {
        return Some(readable(library, job));
    }
    let outermost = called().find(|frame| {
        let path = frame.path.as_deref().unwrap_or_default();
        frame.origin == Origin::Library && names::is_user_code(path) && !names::is_of_any_type(path)
    });
    outermost.map(|frame| of_frame(frame, job))
}

/// A type or function as a person would call it: `a::b::{{closure}}` is `async fn a::b`.
///
/// Debug information says what a closure is. Symbols of either mangling do not: there one closure
/// deep is an async function, and deeper an async block in it, which is right for what is spawned
/// nearly always.
pub fn readable(name: &str, job: Job) -> String {
    let path = names::normalise(name);
    let outer = outside_closures(&path);
    let depth = path[outer.len()..].matches(CLOSURE).count();
    let place = outer.split("::").filter(|segment| !segment.starts_with("{impl"));
    let place = place.collect::<Vec<_>>().join("::");
    let exactly = |kind: &str| last_segment(name).starts_with(kind);
    match job {
        _ if exactly("{async_fn") => format!("async fn {place}"),
        _ if exactly("{async_block") => format!("async block in {place}"),
        _ if exactly("{async_closure") => format!("async closure in {place}"),
        Job::Future if depth == 0 => place.strip_suffix("::poll").unwrap_or(&place).to_owned(),
        Job::Closure if depth == 0 => {
            place.strip_suffix("::call_once").unwrap_or(&place).to_owned()
        }
        Job::Future if exactly("{closure_env") => format!("closure in {place}"),
        Job::Future if depth == 1 => format!("async fn {place}"),
        Job::Future => format!("async block in {place}"),
        Job::Closure => format!("closure in {place}"),
    }
}

/// A bare name has its module from its source file, and only the name says what kind it is.
fn of_frame(frame: &Frame, job: Job) -> String {
    let (name, path) = (frame.name.as_deref(), frame.path.as_deref());
    let (name, path) = (name.unwrap_or_default(), path.unwrap_or_default());
    let module = names::split(path).0;
    if name.contains("::") || module.is_empty() {
        return readable(name, job);
    }
    // Which async function of the module it is, nothing says.
    let in_module = readable(&format!("{module}::{name}"), job);
    if name.starts_with("{async_fn") {
        return in_module.replacen("async fn", "async fn in", 1);
    }
    in_module
}

/// The user's function that a library's code was made for: `<orders::get as Handler>::call`.
fn function_of_library(frame: &Frame) -> Option<String> {
    let name = frame.name.as_deref().filter(|name| name.starts_with('<'))?;
    let type_ = before_as(&name[1..closing(name)?]);
    let path = names::normalise(type_);
    let is_function = names::split(&path).1.starts_with(|c: char| c.is_lowercase());
    (is_function && names::is_user(&path) && is_own(type_)).then(|| format!("async fn {path}"))
}

fn carries(path: &str, carriers: Carriers) -> bool {
    carriers.iter().any(|row| plumbing::is_in(path, row))
}

/// Functions of C run no task.
fn is_own_function(frame: &Frame) -> bool {
    frame.origin == Origin::Own && frame.path.as_deref().is_some_and(names::is_user)
}

fn is_own(name: &str) -> bool {
    let path = names::normalise(name);
    Origin::of(Some(name), Some(&path), None, None) == Origin::Own
}

/// The last segment of a name, its generic arguments left out.
fn last_segment(name: &str) -> &str {
    let name = match name.strip_suffix('>') {
        Some(_) => &name[..name.find('<').unwrap_or(name.len())],
        None => name,
    };
    name.trim_end_matches(':').rsplit("::").next().unwrap_or(name)
}

/// The first type among the generic arguments of a function that a user or a library made to be
/// run: the arguments of what only carries it are looked into.
fn first_type(function: &str) -> Option<&str> {
    // `<Harness<T, S>>::poll`: the arguments are those of the type.
    let list = argument_list(function.strip_prefix('<').unwrap_or(function))?;
    runnable(first_of(list))
}

/// What a type runs: itself, or what it carries. A `dyn Future` names only its results.
fn runnable(type_: &str) -> Option<&str> {
    let type_ = type_.trim().trim_start_matches(['&', '*']).trim_start_matches("mut ");
    if type_.starts_with("dyn ") || type_.starts_with("fn(") || type_.starts_with('(') {
        return None;
    }
    let path = names::normalise(type_);
    if names::is_user(&path) && !names::is_of_any_type(&path) {
        return Some(type_);
    }
    let qualified = type_.starts_with('<');
    let inner = if qualified { before_as(&type_[1..closing(type_)?]) } else { type_ };
    let mut list = argument_list(inner)?;
    while !list.is_empty() {
        let argument = first_of(list);
        if let Some(found) = runnable(argument) {
            return Some(found);
        }
        list = list[argument.len()..].trim_start_matches([',', ' ']);
    }
    None
}

/// What stands between the first brackets.
fn argument_list(name: &str) -> Option<&str> {
    let open = name.find('<')?;
    let close = closing(&name[open..])?;
    Some(&name[open + 1..open + close])
}

/// The first of a list that commas divide.
fn first_of(list: &str) -> &str {
    let (mut depth, mut before) = (0_i32, ' ');
    for (at, c) in list.char_indices() {
        match c {
            ',' if depth == 0 => return &list[..at],
            '<' | '(' | '[' => depth += 1,
            '>' if before == '-' => {}
            '>' | ')' | ']' => depth -= 1,
            _ => {}
        }
        before = c;
    }
    list
}

#[cfg(test)]
mod tests;
