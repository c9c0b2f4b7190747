//! A file's unwind information as a compact table that any walk can search.
//!
//! Bytes in, rows out: nothing is read but what is given, and nothing of it is trusted. The layout
//! is that of [`profiler_common::table`].

mod entries;
mod frame_pointers;
mod frames;
#[cfg(test)]
mod fuzz;
mod layout;
mod machine;
mod plain;
pub mod reading;
mod rules;
pub mod stored;
#[cfg(test)]
pub(super) mod tests;

use std::ops::Range;

use profiler_common::{
    search::halve,
    table::{CfaKind, Page, Row, Rule, TEXT_PAGE_SHIFT},
};

use super::known;
use crate::units::Svma;

/// Bytes between two functions up to which a gap is alignment, and no code that a stack could be in.
const PADDING_MAX: u32 = 15;

/// What a table is made of: where code lies in a file, and the sections that describe it.
#[derive(Clone, Debug, Default)]
pub struct Sources<'data> {
    /// The executable segments.
    pub text: Vec<Range<Svma>>,
    /// The bytes of `.eh_frame`.
    pub eh_frame: Option<&'data [u8]>,
    /// The bytes of `.debug_frame`; used for code that `.eh_frame` does not describe.
    pub debug_frame: Option<&'data [u8]>,
    /// Where `.eh_frame` lies: addresses in it are relative to themselves.
    pub eh_frame_at: Option<Svma>,
    /// Where `.text` lies; addresses can be relative to it.
    pub text_at: Option<Svma>,
    /// Where `.got` lies; addresses can be relative to it.
    pub got_at: Option<Svma>,
}

/// The unwind table of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The address of the first text page, shifted right by [`TEXT_PAGE_SHIFT`].
    pub first_page: u64,
    /// One entry for each 64 KiB from there on.
    pub pages: Vec<Page>,
    /// The rows of all pages.
    pub rows: Vec<Row>,
    /// The distinct rules.
    pub rules: Vec<Rule>,
    /// Code that nothing describes, padding aside.
    pub uncovered: Vec<Range<Svma>>,
    /// The rules for code that no section describes, or none rightly, in order and apart from each other; where there
    /// is none, [`CfaKind::Uncovered`] holds.
    pub undescribed: Vec<(Range<Svma>, Rule)>,
    /// What the unwind information has that no rule can say.
    pub unsupported: Census,
    /// How many functions, or parts of functions, are described.
    pub described: u64,
    /// Bytes of code that nothing describes and whose rules were found by [reading] it.
    pub read: u64,
}

/// How much of a file there is of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census([Share; Unsupported::ALL.len()]);

/// How much of a file there is of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Rows of unwind information, before neighbours that say the same became one.
    pub rows: u64,
    /// Bytes of code.
    pub bytes: u64,
}

macro_rules! unsupported {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal,)+) => {
        /// Why a row of unwind information became no rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Unsupported { $($(#[$doc])+ $variant,)+ }

        impl Unsupported {
            /// Every kind, in the order in which they are printed.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// What it is, for a person.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

unsupported! {
    /// The CFA is counted from a register other than `rsp` and `rbp`.
    CfaRegister = "CFA from another register",
    /// The CFA is an expression of a form that is not known.
    CfaExpression = "CFA by an unknown expression",
    /// `rbp` is in another register, or where an expression of an unknown form says.
    SavedBp = "rbp saved in an unknown way",
    /// The return address is neither below the CFA nor, as in `vfork`, in `rdi`.
    ReturnAddress = "return address in an unknown place",
    /// A signal frame that is not the kernel's.
    SignalFrame = "unknown signal frame",
    /// An offset is too large for a rule.
    Offset = "offset too large",
    /// There are more distinct rules than a row can tell apart.
    TooManyRules = "more rules than a table can hold",
    /// The unwind information contradicts itself or ends too early.
    Malformed = "malformed unwind information",
}

impl Census {
    /// The kinds that there are.
    pub fn iter(&self) -> impl Iterator<Item = (Unsupported, Share)> + '_ {
        let all = Unsupported::ALL.iter().copied().zip(self.0);
        all.filter(|(_, share)| *share != Share::default())
    }

    fn add(&mut self, kind: Unsupported, bytes: u64) {
        let share = &mut self.0[kind as usize];
        share.rows += 1;
        share.bytes = share.bytes.saturating_add(bytes);
    }
}

impl Table {
    /// Makes the table. Never fails: what cannot be understood is counted.
    ///
    /// Code that lies 4 GiB and more behind the first is left out.
    pub fn build(sources: &Sources<'_>) -> Self {
        let Some(text) = layout::Text::of(&sources.text) else { return Self::default() };
        let functions = frames::read(sources, &text);
        layout::table(&text, functions)
    }

    /// Adds what can be found by [reading] the code that no section describes, and how to leave the
    /// rest of it: by frame pointer if it keeps frame pointers, else not at all.
    pub fn complete(&mut self, code: &reading::Code<'_>) {
        let gaps = std::mem::take(&mut self.uncovered);
        let is_new = |(range, rule): &reading::Found| {
            self.rule_at(Svma(range.end - 1)).is_some_and(|known| known != *rule)
        };
        let mut found = known::restorers(code);
        found.retain(is_new);
        if reading::is_worth(code, &gaps) {
            reading::join(&mut found, reading::read(code, &gaps));
        }
        self.read = found.iter().map(|(range, _)| range.end - range.start).sum();
        self.uncovered = reading::rest(code, &gaps, &found);
        let lost = gaps.iter().filter(|gap| !frame_pointers::are_kept(code, gap));
        reading::join(
            &mut found,
            lost.map(|gap| (gap.start.0..gap.end.0, Rule::of(CfaKind::Unsupported))).collect(),
        );
        layout::complete(self, &found);
        let svma = |range: Range<u64>| Svma(range.start)..Svma(range.end);
        self.undescribed = found.into_iter().map(|(range, rule)| (svma(range), rule)).collect();
    }

    /// The rule for the instruction that an address lies in; `None` outside of the code.
    pub fn rule_at(&self, address: Svma) -> Option<Rule> {
        let page = (address.0 >> TEXT_PAGE_SHIFT).checked_sub(self.first_page)?;
        let Page { first_row, rows } = *self.pages.get(usize::try_from(page).ok()?)?;
        if rows == 0 {
            return None;
        }
        let row = |index: u32| self.rows[(first_row + index) as usize];
        let (mut at, mut count) = (0, rows);
        while count > 1 {
            let half = count / 2;
            at = halve(at, half, row(at + half).low(), address.0 as u16);
            count -= half;
        }
        Some(self.rules[usize::from(row(at).rule())])
    }

    /// Bytes of rows, rules and pages.
    pub fn bytes(&self) -> u64 {
        let Self { pages, rows, rules, .. } = self;
        (size_of_val(pages.as_slice())
            + size_of_val(rows.as_slice())
            + size_of_val(rules.as_slice())) as u64
    }
}
