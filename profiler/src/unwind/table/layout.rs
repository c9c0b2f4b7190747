//! Functions with their rows to the pages of a table.

use std::ops::Range;

use profiler_common::table::{Page, Row, TEXT_PAGE_BYTES, TEXT_PAGE_SHIFT};

use super::{
    PADDING_MAX, Table,
    frames::{Functions, Span},
    reading::Found,
    rules::Rules,
};
use crate::units::Svma;

/// Where the code of a file lies. Offsets in it count from the beginning of its first text page.
pub struct Text {
    base: u64,
    /// Apart from each other, and in order.
    segments: Vec<Range<u32>>,
    /// From the first byte of code to the last.
    whole: Range<u32>,
}

impl Text {
    /// `None` if there is no code.
    pub fn of(segments: &[Range<Svma>]) -> Option<Self> {
        let filled = || segments.iter().filter(|segment| segment.start < segment.end);
        let base = filled().map(|segment| segment.start.0).min()? & !(TEXT_PAGE_BYTES - 1);
        let mut text = Self { base, segments: Vec::new(), whole: 0..0 };
        text.segments = filled()
            .filter_map(|segment| Some(text.offset(segment.start.0)?..text.offset(segment.end.0)?))
            .collect();
        text.segments.sort_by_key(|segment| segment.start);
        text.segments.dedup_by(|next, segment| {
            let one = next.start <= segment.end;
            if one {
                segment.end = segment.end.max(next.end);
            }
            one
        });
        text.whole = text.segments.first()?.start..text.segments.last()?.end;
        Some(text)
    }

    /// The part of a range of addresses that lies between the first and the last byte of code.
    pub fn clip(&self, start: u64, end: u64) -> Option<Range<u32>> {
        let start = start.max(self.base + u64::from(self.whole.start));
        let end = end.min(self.base + u64::from(self.whole.end));
        (start < end).then(|| (start - self.base) as u32..(end - self.base) as u32)
    }

    /// Where in a part of the code an address lies, or which end of it is nearer.
    pub fn offset_in(&self, code: &Range<u32>, address: u64) -> u32 {
        let offset = address.saturating_sub(self.base);
        offset.clamp(code.start.into(), code.end.into()) as u32
    }

    fn offset(&self, address: u64) -> Option<u32> {
        address.checked_sub(self.base)?.try_into().ok()
    }

    fn address(&self, offset: u32) -> Svma {
        Svma(self.base + u64::from(offset))
    }

    /// The parts of a range that are code, in order.
    fn code_in(&self, range: Range<u32>) -> impl Iterator<Item = Range<Svma>> + '_ {
        let first = self.segments.partition_point(|segment| segment.end <= range.start);
        let segments = self.segments[first..].iter();
        segments.take_while(move |segment| segment.start < range.end).map(move |segment| {
            let (start, end) = (segment.start.max(range.start), segment.end.min(range.end));
            self.address(start)..self.address(end)
        })
    }
}

/// Lays out the table.
///
/// Where descriptions overlap, each holds up to the beginning of the next. A gap of at most
/// [`PADDING_MAX`] bytes belongs to the function before it; its last byte belongs to the function
/// behind it: the first byte of a function can be a return address (that of a signal handler, or of
/// a coroutine's first function), which is looked up by the byte before.
pub fn table(text: &Text, functions: Functions) -> Table {
    let Functions { spans, rows, rules, unsupported } = functions;
    let order = order(&spans);
    let whole = text.whole.clone();
    let mut pages = Pages::new(rows.len() + rows.len() / 8);
    let mut uncovered = Vec::new();
    let mut described = 0;
    let mut end = whole.start;
    for (place, &key) in order.iter().enumerate() {
        let span = &spans[key as u32 as usize];
        let start = span.code.start;
        let limit = order.get(place + 1).map_or(u32::MAX, |next| (next >> 32) as u32);
        if limit == start {
            continue;
        }
        described += 1;
        let gap = start.saturating_sub(end);
        if gap > PADDING_MAX {
            pages.rule_from(end, Rules::UNCOVERED);
            uncovered.extend(text.code_in(end..start));
        }
        for &(from, rule) in &rows[span.rows.start as usize..span.rows.end as usize] {
            if from >= limit {
                break;
            }
            pages.rule_from(from - u32::from(from == start && gap > 0), rule);
        }
        end = span.code.end.min(limit);
    }
    // What follows the last function is code of its own, however short: `_fini`.
    if end < whole.end {
        pages.rule_from(end, Rules::UNCOVERED);
        uncovered.extend(text.code_in(end..whole.end));
    }
    let (pages, rows) = pages.finish(whole.end);
    Table {
        first_page: text.base >> TEXT_PAGE_SHIFT,
        pages,
        rows,
        rules,
        uncovered,
        undescribed: Vec::new(),
        unsupported,
        described,
        read: 0,
    }
}

/// Puts rules where the table has none; `found` is in order and apart from each other.
pub fn complete(table: &mut Table, found: &[Found]) {
    let base = table.first_page << TEXT_PAGE_SHIFT;
    let mut rules = Rules::of(table.rules.clone());
    let mut changes = Vec::with_capacity(table.rows.len() + 2 * found.len());
    let mut last = None;
    for (index, page) in (0_u32..).zip(&table.pages) {
        for row in &table.rows[page.first_row as usize..][..page.rows as usize] {
            // What a page begins with repeats what the one before ends with.
            if last != Some(row.rule()) {
                changes.push((index << TEXT_PAGE_SHIFT | u32::from(row.low()), row.rule()));
                last = Some(row.rule());
            }
        }
    }
    for (range, rule) in found {
        let Ok(number) = rules.number(*rule) else { continue };
        changes.push(((range.start - base) as u32, number));
        let then = table.rule_at(Svma(range.end)).and_then(|then| rules.number(then).ok());
        changes.extend(then.map(|then| ((range.end - base) as u32, then)));
    }
    // Of two at one place the later holds. Where one found range ends and the next begins, they are
    // in that order already.
    changes.sort_by_key(|(from, _)| *from);
    let mut pages = Pages::new(changes.len() + changes.len() / 8);
    for (from, rule) in changes {
        pages.rule_from(from, rule);
    }
    let end = (table.pages.len() as u64) << TEXT_PAGE_SHIFT;
    (table.pages, table.rows) = pages.finish(u32::try_from(end).unwrap_or(u32::MAX));
    table.rules = rules.list;
}

/// The functions by where they begin, those at one place in the order they have: for each where it
/// begins, and in the lower half its index. Numbers alone are sorted in half the time.
#[expect(clippy::stable_sort_primitive, reason = "makes use of the runs that are in order already")]
fn order(spans: &[Span]) -> Vec<u64> {
    let starts = spans.iter().zip(0_u64..);
    let mut order =
        starts.map(|(span, index)| u64::from(span.code.start) << 32 | index).collect::<Vec<_>>();
    order.sort();
    order
}

/// Rows as they are laid out. Addresses ascend.
struct Pages {
    done: Vec<Page>,
    rows: Vec<Row>,
    /// The rule that holds from the last row on.
    rule: u16,
}

impl Pages {
    fn new(rows: usize) -> Self {
        Self { done: Vec::new(), rows: Vec::with_capacity(rows), rule: Rules::UNCOVERED }
    }

    fn rule_from(&mut self, from: u32, rule: u16) {
        if rule == self.rule {
            return;
        }
        self.reach(from >> TEXT_PAGE_SHIFT);
        self.rule = rule;
        let row = Row::new(from as u16, rule);
        match self.rows.last_mut() {
            // The row that the page began with, or one that holds for no byte.
            Some(last) if last.low() == row.low() => *last = row,
            _ => self.rows.push(row),
        }
    }

    /// Begins every page up to this one with what holds at the end of the one before.
    fn reach(&mut self, page: u32) {
        while self.done.len() as u64 <= u64::from(page) {
            self.end_page();
            self.done.push(Page { first_row: self.rows.len() as u32, rows: 0 });
            self.rows.push(Row::new(0, self.rule));
        }
    }

    fn end_page(&mut self) {
        if let Some(page) = self.done.last_mut() {
            page.rows = self.rows.len() as u32 - page.first_row;
        }
    }

    fn finish(mut self, end: u32) -> (Vec<Page>, Vec<Row>) {
        self.reach(end.saturating_sub(1) >> TEXT_PAGE_SHIFT);
        self.end_page();
        self.rows.shrink_to_fit();
        (self.done, self.rows)
    }
}
