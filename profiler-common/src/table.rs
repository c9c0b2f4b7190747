//! Compact unwind tables: for every address of a file's code, the rule that leaves its frame.
//!
//! Code is divided into text pages of [`TEXT_PAGE_BYTES`]. A [`Page`] names a run of [`Row`]s, sorted
//! by where in the page they begin; the first begins at 0, so an address is always answered by its own
//! page. A row names a [`Rule`]; a file has few distinct ones.

/// Bytes of code that one [`Page`] answers for.
pub const TEXT_PAGE_BYTES: u64 = 1 << TEXT_PAGE_SHIFT;
/// Bits of an address that say where in its text page it lies.
pub const TEXT_PAGE_SHIFT: u32 = 16;

/// The rows of one text page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Page {
    /// Index of its first row.
    pub first_row: u32,
    /// How many rows it has; 0 for a page without code.
    pub rows: u32,
}

/// Where a rule begins to hold, and which; it holds up to the next row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Row(u32);

/// How to leave a frame. The default is [`CfaKind::Unsupported`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Rule {
    /// Where the canonical frame address is: the caller's stack pointer, 8 above its return address.
    pub cfa: CfaKind,
    /// Where the caller's `rbp` is.
    pub bp: BpKind,
    /// The offset that [`BpKind`] speaks of, in bytes.
    pub bp_offset: i16,
    /// The number that [`CfaKind`] speaks of.
    pub cfa_offset: i32,
}

/// Where the canonical frame address is. `n` is [`Rule::cfa_offset`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CfaKind {
    /// Unwind information says none of the other kinds, or nothing, of code without frame pointers.
    #[default]
    Unsupported = 0,
    /// `rsp + n`.
    Sp = 1,
    /// `rbp + n`.
    Bp = 2,
    /// An entry of a procedure linkage table: `rsp + 8`, and 8 more from its byte `n` of 16 on.
    Plt = 3,
    /// `*(rsp + a) + b`: assembly that keeps the old stack pointer on the stack. [`Rule::halves`].
    AtSp = 4,
    /// `*(rbp + a) + b`: functions that realign their stack. [`Rule::halves`].
    AtBp = 5,
    /// The kernel's signal frame lies at `rsp`: all registers are in it.
    Signal = 6,
    /// The outermost frame: it has no caller.
    Stop = 7,
    /// `rsp + n`, and the return address is in `rdi` (`vfork`).
    ReturnInDi = 8,
    /// Frame pointers, and no unwind information. A leaf is taken to have only its return address on
    /// the stack, any other frame to have a frame pointer: guesses that the caller has to check.
    Uncovered = 9,
}

/// Where the caller's `rbp` is. `n` is [`Rule::bp_offset`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum BpKind {
    /// Still in `rbp`.
    #[default]
    Same = 0,
    /// `*(CFA + n)`.
    AtCfa = 1,
    /// `*(rbp + n)`: functions that realign their stack.
    AtBp = 2,
}

const _: () = assert!(size_of::<Page>() == 8);
const _: () = assert!(size_of::<Row>() == 4);
const _: () = assert!(size_of::<Rule>() == 8);

impl Row {
    /// A row whose rule, the one with that index, holds from byte `low` of the page on.
    #[inline]
    pub const fn new(low: u16, rule: u16) -> Self {
        Self(low as u32 | (rule as u32) << 16)
    }

    /// It as a number: where it begins in the low half, its rule in the high half.
    #[inline]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Where in the page it begins.
    #[inline]
    pub const fn low(self) -> u16 {
        self.0 as u16
    }

    /// Index of its rule.
    #[inline]
    pub const fn rule(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

impl Rule {
    /// A rule with only a kind.
    #[inline]
    pub const fn of(cfa: CfaKind) -> Self {
        Self { cfa, bp: BpKind::Same, bp_offset: 0, cfa_offset: 0 }
    }

    /// The rule as it lies in memory of a little-endian machine.
    #[inline]
    pub const fn to_bytes(self) -> [u8; 8] {
        let Self { cfa, bp, bp_offset, cfa_offset } = self;
        let ([low, high], [a, b, c, d]) = (bp_offset.to_le_bytes(), cfa_offset.to_le_bytes());
        [cfa as u8, bp as u8, low, high, a, b, c, d]
    }

    /// `a` and `b` as the [`Rule::cfa_offset`] of [`CfaKind::AtSp`] and [`CfaKind::AtBp`].
    #[inline]
    pub const fn join(a: i16, b: i16) -> i32 {
        (b as i32) << 16 | (a as u16 as i32)
    }

    /// The `a` and `b` of [`CfaKind::AtSp`] and [`CfaKind::AtBp`].
    #[inline]
    pub const fn halves(self) -> (i16, i16) {
        (self.cfa_offset as i16, (self.cfa_offset >> 16) as i16)
    }
}
