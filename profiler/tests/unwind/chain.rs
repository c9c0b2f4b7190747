//! The chains of functions that stacks must be.

use std::fmt;

use serde_json::Value;

use crate::support::report::list;

/// What functions of the matrix's own programs are called.
const OWN: &str = "cell_";

/// The native frames of a site's user stack, root first, by name.
#[derive(Debug, PartialEq, Eq)]
pub struct Frames(pub Vec<String>);

/// A chain of functions, root first, that a stack must be.
///
/// It is written as words. A word is the name of a function, or several with `|` between, one of
/// which it is; `name*20` is twenty such frames; `..` is one or more frames of functions that are not
/// the programs' own, `..20` twenty or more. A chain that begins with `?` need not occur. One that
/// begins with `~` is a stack that reaches further than a copy of it: it is large, or lies in two
/// places.
#[derive(Clone, Debug)]
pub struct Chain {
    text: String,
    links: Vec<Link>,
    /// Whether it has to occur.
    pub required: bool,
    /// Whether a copy of the stack holds all of it.
    pub copied: bool,
}

#[derive(Clone, Debug)]
enum Link {
    /// One frame, of one of these functions.
    Named(Vec<String>),
    /// So many frames of others or more.
    Foreign(usize),
}

impl Frames {
    /// The native user frames of a site; `name_of` knows the names of functions that the report
    /// cannot know, by file and address.
    pub fn of(site: &Value, name_of: impl Fn(&str, u64) -> Option<String>) -> Self {
        let native = list(&site["frames"])
            .iter()
            .filter(|frame| frame["kind"] != "kernel" && frame["kind"] != "inlined");
        let named = native.map(|frame| {
            if let Some(function) = frame["function"].as_str() {
                return base(function).to_owned();
            }
            let module = frame["module"].as_str().unwrap_or("[jit]");
            let address = frame["address"].as_str().unwrap();
            let number = u64::from_str_radix(address.trim_start_matches("0x"), 16).unwrap();
            let known = name_of(module, number).map(|name| base(&name).to_owned());
            known.unwrap_or_else(|| format!("[{module}+{address}]"))
        });
        Self(named.collect())
    }
}

impl Chain {
    /// Reads it from words.
    pub fn new(text: &str) -> Self {
        let words = text.trim_start_matches(['?', '~']);
        let (required, copied) = (!text.starts_with('?'), !text.starts_with('~'));
        let links = words.split_whitespace().flat_map(|word| {
            if let Some(least) = word.strip_prefix("..") {
                let least = if least.is_empty() { 1 } else { least.parse().unwrap() };
                return vec![Link::Foreign(least)];
            }
            let (names, times) = word.split_once('*').unwrap_or((word, "1"));
            let names = names.split('|').map(str::to_owned).collect();
            vec![Link::Named(names); times.parse().unwrap()]
        });
        Self { text: text.to_owned(), links: links.collect(), required, copied }
    }

    /// Whether the frames are the whole chain.
    pub fn is(&self, frames: &Frames) -> bool {
        matches(&self.links, &frames.0)
    }

    /// Whether the frames are the chain's leaf side.
    pub fn ends_with(&self, frames: &Frames) -> bool {
        (0..self.links.len()).any(|from| {
            let mut links = self.links[from..].to_vec();
            if let Link::Foreign(least) = &mut links[0] {
                *least = 0;
            }
            matches(&links, &frames.0)
        })
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn matches(links: &[Link], frames: &[String]) -> bool {
    let Some((link, links)) = links.split_first() else { return frames.is_empty() };
    match link {
        Link::Named(names) => frames
            .split_first()
            .is_some_and(|(frame, frames)| names.contains(frame) && matches(links, frames)),
        Link::Foreign(least) => {
            let foreign = frames.iter().take_while(|frame| !frame.starts_with(OWN)).count();
            (*least..=foreign).any(|taken| matches(links, &frames[taken..]))
        }
    }
}

/// A function's name without its arguments, and without what compilers add to the names of parts and
/// copies of functions.
fn base(function: &str) -> &str {
    let name = function.split_once('(').map_or(function, |(name, _)| name);
    if name.starts_with(OWN) { name.split('.').next().unwrap() } else { name }
}

#[test]
fn chains_are_matched_as_they_are_written() {
    let check = |chain: &str, frames: &str, whole: bool, part: bool| {
        let frames = Frames(frames.split_whitespace().map(str::to_owned).collect());
        let chain = Chain::new(chain);
        assert_eq!((chain.is(&frames), chain.ends_with(&frames)), (whole, part), "{frames:?}");
    };
    let chain = "_start .. main cell_a cell_b*2 cell_c|cell_d ..";
    check(chain, "_start x y main cell_a cell_b cell_b cell_c poll", true, true);
    check(chain, "_start x main cell_a cell_b cell_b cell_d a b", true, true);
    check(chain, "x main cell_a cell_b cell_b cell_d a b", false, true);
    check(chain, "cell_b cell_b cell_d a b", false, true);
    check(chain, "cell_b cell_d a", false, true);
    check(chain, "a b", false, true);
    check(chain, "_start main cell_a cell_b cell_b cell_c poll", false, true);
    check(chain, "_start x main cell_a cell_b cell_c poll", false, false);
    check(chain, "_start x main cell_a cell_b cell_b cell_c", false, false);
    check(chain, "_start x cell_x main cell_a cell_b cell_b cell_c poll", false, false);
    check("..3 cell_a", "a b c cell_a", true, true);
    check("..3 cell_a", "a b cell_a", false, true);
    assert_eq!(base("cell_a.constprop.0"), "cell_a");
    assert_eq!(base("Guard::~Guard()"), "Guard::~Guard");
}
