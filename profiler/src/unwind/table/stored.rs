//! A table as the bytes of a file, and back.
//!
//! ```text
//! file   = magic (8)  version (u32)  crc32 of all that follows (u32)  counts  body
//! counts = first page  described  read  bytes of identity, pages, rows, rules, gaps, undescribed (u64 each)
//! body   = identity of the file it is of  census  pages  rules  gaps  undescribed  rows
//! ```
//!
//! All numbers are little-endian. Rows come last and are the bulk; everything is read in one pass through a
//! small buffer, so that reading costs little more than the copy that a table is anyway.

use std::io::{self, Read, Write};

use profiler_common::table::{BpKind, CfaKind, Page, Row, Rule};

use super::{Census, Share, Table, Unsupported};
use crate::units::Svma;

const MAGIC: [u8; 8] = *b"stalltbl";

/// To be raised with any change of the layout, and with any change that makes other tables of the same
/// files.
const VERSION: u32 = 4;

const HEADER_BYTES: usize = 16;
const COUNTS: usize = 9;
const PAGE_BYTES: usize = 8;
const ROW_BYTES: usize = 4;
const RULE_BYTES: usize = 8;
const GAP_BYTES: usize = 16;
const UNDESCRIBED_BYTES: usize = GAP_BYTES + RULE_BYTES;
const SHARE_BYTES: usize = 16;

/// Bytes read at once; small enough to be still in a cache when they are looked at.
const BUFFER_BYTES: usize = 64 << 10;

/// Writes a table of the file with this identity.
pub fn write(table: &Table, identity: &[u8], out: &mut impl Write) -> io::Result<()> {
    let body = body(table, identity);
    out.write_all(&MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    out.write_all(&crc32fast::hash(&body).to_le_bytes())?;
    out.write_all(&body)
}

fn body(table: &Table, identity: &[u8]) -> Vec<u8> {
    let Table {
        first_page,
        pages,
        rows,
        rules,
        uncovered,
        undescribed,
        unsupported,
        described,
        read,
    } = table;
    let counts = [
        *first_page,
        *described,
        *read,
        identity.len() as u64,
        pages.len() as u64,
        rows.len() as u64,
        rules.len() as u64,
        uncovered.len() as u64,
        undescribed.len() as u64,
    ];
    let mut body = Vec::with_capacity(size(&counts).unwrap_or(0));
    body.extend(counts.iter().flat_map(|n| n.to_le_bytes()));
    body.extend(identity);
    for Share { rows, bytes } in unsupported.0 {
        body.extend(rows.to_le_bytes());
        body.extend(bytes.to_le_bytes());
    }
    for page in pages {
        body.extend(page.first_row.to_le_bytes());
        body.extend(page.rows.to_le_bytes());
    }
    body.extend(rules.iter().copied().flat_map(Rule::to_bytes));
    for gap in uncovered {
        body.extend(gap.start.0.to_le_bytes());
        body.extend(gap.end.0.to_le_bytes());
    }
    for (code, rule) in undescribed {
        body.extend(code.start.0.to_le_bytes());
        body.extend(code.end.0.to_le_bytes());
        body.extend(rule.to_bytes());
    }
    for row in rows {
        body.extend(row.low().to_le_bytes());
        body.extend(row.rule().to_le_bytes());
    }
    body
}

/// Reads the table of the file with this identity out of `bytes` bytes.
///
/// `None` if they are anything but what [`write()`] writes: of another version or file, cut short, damaged.
pub fn read(input: impl Read, bytes: u64, identity: &[u8]) -> Option<Table> {
    let mut input = Summed { input, buffer: vec![0; BUFFER_BYTES], sum: crc32fast::Hasher::new() };
    let mut header = [0; HEADER_BYTES];
    input.input.read_exact(&mut header).ok()?;
    let (magic, rest) = header.split_first_chunk()?;
    let (version, sum) = rest.split_first_chunk()?;
    if *magic != MAGIC || u32::from_le_bytes(*version) != VERSION {
        return None;
    }
    let sum = u32::from_le_bytes(sum.try_into().ok()?);
    let counts = input.items::<8, _>(COUNTS, u64::from_le_bytes)?;
    // Nothing is reserved for more than the file has.
    if size(&counts)?.checked_add(HEADER_BYTES)? as u64 != bytes {
        return None;
    }
    let [first_page, described, read, named, pages, rows, rules, gaps, undescribed] =
        *counts.first_chunk::<COUNTS>()?;
    if input.items::<1, _>(named as usize, |[byte]| byte)? != identity {
        return None;
    }
    let kinds = Unsupported::ALL.len();
    let shares = input.items::<SHARE_BYTES, _>(kinds, |share| {
        let [rows, bytes] = halves(share);
        Share { rows, bytes }
    })?;
    let unsupported = Census(shares.try_into().ok()?);
    let pages = input.items::<PAGE_BYTES, _>(pages as usize, |page| {
        let packed = u64::from_le_bytes(page);
        Page { first_row: packed as u32, rows: (packed >> 32) as u32 }
    })?;
    let rules = input.items::<RULE_BYTES, _>(rules as usize, rule)?;
    let rules = rules.into_iter().collect::<Option<Vec<_>>>()?;
    let uncovered = input.items::<GAP_BYTES, _>(gaps as usize, |gap| {
        let [start, end] = halves(gap);
        Svma(start)..Svma(end)
    })?;
    let undescribed = input.items::<UNDESCRIBED_BYTES, _>(undescribed as usize, |bytes| {
        let (gap, rule_bytes) = bytes.split_first_chunk()?;
        let [start, end] = halves(*gap);
        Some((Svma(start)..Svma(end), rule(rule_bytes.try_into().ok()?)?))
    })?;
    let undescribed = undescribed.into_iter().collect::<Option<Vec<_>>>()?;
    let rows = input.items::<ROW_BYTES, _>(rows as usize, |row| {
        let packed = u32::from_le_bytes(row);
        Row::new(packed as u16, (packed >> 16) as u16)
    })?;
    let table = Table {
        first_page,
        pages,
        rows,
        rules,
        uncovered,
        undescribed,
        unsupported,
        described,
        read,
    };
    (input.sum.finalize() == sum && is_sound(&table)).then_some(table)
}

/// Bytes behind the header; `None` if no file can have as many.
fn size(counts: &[u64]) -> Option<usize> {
    let [_, _, _, named, pages, rows, rules, gaps, undescribed] = *counts else { return None };
    let parts = [
        (counts.len() as u64, 8),
        (named, 1),
        (Unsupported::ALL.len() as u64, SHARE_BYTES),
        (pages, PAGE_BYTES),
        (rows, ROW_BYTES),
        (rules, RULE_BYTES),
        (gaps, GAP_BYTES),
        (undescribed, UNDESCRIBED_BYTES),
    ];
    parts.iter().try_fold(0_usize, |sum, &(count, bytes)| {
        sum.checked_add(usize::try_from(count).ok()?.checked_mul(bytes)?)
    })
}

/// What every search leans on. A sum that adds up tells damage, not mistakes.
fn is_sound(table: &Table) -> bool {
    let mut next = 0_usize;
    let in_order = table.pages.iter().all(|page| {
        let first = next;
        next = first.saturating_add(page.rows as usize);
        page.first_row as usize == first && next <= table.rows.len()
    });
    // Without a branch, so that many rows are looked at at once.
    let last = table.rows.iter().fold(0, |last, row| row.rule().max(last));
    in_order
        && table.uncovered.iter().all(|gap| gap.start <= gap.end)
        && table.undescribed.is_sorted_by(|(one, _), (next, _)| one.end <= next.start)
        && next == table.rows.len()
        && (table.rows.is_empty() || usize::from(last) < table.rules.len())
}

fn rule(bytes: [u8; RULE_BYTES]) -> Option<Rule> {
    let [cfa, bp, low, high, offset @ ..] = bytes;
    let cfa = CFA_KINDS.into_iter().find(|kind| *kind as u8 == cfa)?;
    let bp = BP_KINDS.into_iter().find(|kind| *kind as u8 == bp)?;
    let (bp_offset, cfa_offset) = (i16::from_le_bytes([low, high]), i32::from_le_bytes(offset));
    Some(Rule { cfa, bp, bp_offset, cfa_offset })
}

const CFA_KINDS: [CfaKind; 10] = [
    CfaKind::Unsupported,
    CfaKind::Sp,
    CfaKind::Bp,
    CfaKind::Plt,
    CfaKind::AtSp,
    CfaKind::AtBp,
    CfaKind::Signal,
    CfaKind::Stop,
    CfaKind::ReturnInDi,
    CfaKind::Uncovered,
];
const BP_KINDS: [BpKind; 3] = [BpKind::Same, BpKind::AtCfa, BpKind::AtBp];

fn halves(bytes: [u8; 16]) -> [u64; 2] {
    let packed = u128::from_le_bytes(bytes);
    [packed as u64, (packed >> 64) as u64]
}

/// Reads, and sums up what it reads.
struct Summed<R> {
    input: R,
    buffer: Vec<u8>,
    sum: crc32fast::Hasher,
}

impl<R: Read> Summed<R> {
    fn items<const N: usize, T>(
        &mut self,
        count: usize,
        item: impl Fn([u8; N]) -> T,
    ) -> Option<Vec<T>> {
        let mut items = Vec::with_capacity(count);
        while items.len() < count {
            let now = (count - items.len()).min(BUFFER_BYTES / N);
            let bytes = &mut self.buffer[..now * N];
            self.input.read_exact(bytes).ok()?;
            self.sum.update(bytes);
            let (chunks, _) = bytes.as_chunks::<N>();
            items.extend(chunks.iter().map(|chunk| item(*chunk)));
        }
        Some(items)
    }
}
