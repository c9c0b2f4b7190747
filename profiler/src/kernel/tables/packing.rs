//! The rows of all files, packed into chunks, and their rules, numbered over all files.

use std::collections::HashMap;

use profiler_common::{
    code::{CHUNK_ROWS, CHUNKS_MAX, Chunk, RULES_MAX, TablePage},
    table::{Page, Row, Rule},
};

use crate::unwind::Table;

/// Where the next rows go. Only the chunk that is not full yet is kept.
#[derive(Debug)]
pub struct Packing {
    /// The open chunk's number.
    chunk: u32,
    /// Rows in it.
    filled: usize,
    rows: Box<Chunk>,
    rules: HashMap<Rule, u16>,
}

/// Takes what was packed.
pub trait Store {
    /// Why it cannot.
    type Error;

    /// Takes a chunk that is new, or has more rows than before.
    fn chunk(&mut self, number: u32, rows: &Chunk) -> Result<(), Self::Error>;

    /// Takes a new rule.
    fn rule(&mut self, number: u16, rule: Rule) -> Result<(), Self::Error>;
}

impl Packing {
    /// Nothing packed.
    pub fn new() -> Self {
        let rows = vec![0; CHUNK_ROWS].into_boxed_slice().try_into();
        let rows = rows.expect("a chunk has that many rows");
        Self { chunk: 0, filled: 0, rows, rules: HashMap::new() }
    }

    /// Packs a file's table: its pages, which name rows that `store` has taken. `None` if there is
    /// no room, in which case nothing was packed.
    ///
    /// # Errors
    /// Those of the store.
    pub fn add<S: Store>(
        &mut self,
        table: &Table,
        store: &mut S,
    ) -> Result<Option<Vec<TablePage>>, S::Error> {
        if !self.has_room(table) {
            return Ok(None);
        }
        let numbers = self.number(&table.rules, store)?;
        let mut pages = Vec::with_capacity(table.pages.len());
        for &Page { first_row, rows } in &table.pages {
            let rows = &table.rows[first_row as usize..][..rows as usize];
            if kept_rows(rows.len()) > CHUNK_ROWS - self.filled {
                store.chunk(self.chunk, &self.rows)?;
                self.chunk += 1;
                self.filled = 0;
                self.rows.fill(0);
            }
            let first = self.filled;
            if rows.len() > CHUNK_ROWS {
                self.push(Row::new(0, self.rules[&Rule::default()]));
            } else {
                for row in rows {
                    self.push(Row::new(row.low(), numbers[usize::from(row.rule())]));
                }
            }
            pages.push(TablePage {
                chunk: self.chunk,
                first: first as u16,
                rows: (self.filled - first) as u16,
            });
        }
        store.chunk(self.chunk, &self.rows)?;
        Ok(Some(pages))
    }

    fn push(&mut self, row: Row) {
        self.rows[self.filled] = row.bits();
        self.filled += 1;
    }

    /// The numbers of a file's rules, and of the one for what no rule says.
    fn number<S: Store>(&mut self, rules: &[Rule], store: &mut S) -> Result<Vec<u16>, S::Error> {
        rules
            .iter()
            .chain([&Rule::default()])
            .map(|&rule| {
                if let Some(&number) = self.rules.get(&rule) {
                    return Ok(number);
                }
                let number = self.rules.len() as u16;
                store.rule(number, rule)?;
                self.rules.insert(rule, number);
                Ok(number)
            })
            .collect()
    }

    fn has_room(&self, table: &Table) -> bool {
        let unknown = Rule::default();
        let is_new = |rule: &&Rule| !self.rules.contains_key(rule);
        let new = table.rules.iter().filter(|rule| **rule != unknown).filter(is_new).count()
            + [&unknown].into_iter().filter(is_new).count();
        let (mut chunk, mut filled) = (self.chunk as usize, self.filled);
        for page in &table.pages {
            let rows = kept_rows(page.rows as usize);
            if rows > CHUNK_ROWS - filled {
                chunk += 1;
                filled = 0;
            }
            filled += rows;
        }
        self.rules.len() + new <= RULES_MAX && chunk < CHUNKS_MAX
    }
}

/// A page of more rows than a chunk has becomes one that no rule says how to leave: it would have
/// a rule for every four bytes of code.
fn kept_rows(rows: usize) -> usize {
    if rows > CHUNK_ROWS { 1 } else { rows }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test may panic")]

    use std::{convert::Infallible, fs};

    use profiler_common::{search::halve, table::CfaKind};

    use super::*;
    use crate::{units::Svma, unwind::CodeFile};

    /// What the maps hold.
    #[derive(Default)]
    struct Maps {
        chunks: HashMap<u32, Chunk>,
        rules: HashMap<u16, Rule>,
    }

    impl Store for Maps {
        type Error = Infallible;

        fn chunk(&mut self, number: u32, rows: &Chunk) -> Result<(), Infallible> {
            if let Some(before) = self.chunks.insert(number, *rows) {
                // Programs may be searching in it.
                let filled = before.iter().rposition(|&row| row != 0).map_or(0, |last| last + 1);
                assert_eq!(before[..filled], rows[..filled]);
            }
            Ok(())
        }

        fn rule(&mut self, number: u16, rule: Rule) -> Result<(), Infallible> {
            assert_eq!(self.rules.insert(number, rule), None);
            Ok(())
        }
    }

    impl Maps {
        /// As the kernel side searches.
        fn rule_at(&self, page: TablePage, low: u16) -> Option<Rule> {
            if page.rows == 0 {
                return None;
            }
            let chunk = &self.chunks[&page.chunk];
            let (mut at, mut count) = (u32::from(page.first), u32::from(page.rows));
            while count > 1 {
                let half = count / 2;
                at = halve(at, half, chunk[(at + half) as usize] as u16, low);
                count -= half;
            }
            Some(self.rules[&((chunk[at as usize] >> 16) as u16)])
        }
    }

    /// Packs tables one after the other and compares every rule, once all are there.
    fn check(tables: &[Table]) -> (Packing, Maps) {
        let (mut packing, mut maps) = (Packing::new(), Maps::default());
        let packed: Vec<_> =
            tables.iter().map(|table| packing.add(table, &mut maps).unwrap().unwrap()).collect();
        for (table, pages) in tables.iter().zip(packed) {
            assert_eq!(table.pages.len(), pages.len());
            for (index, (page, packed)) in table.pages.iter().zip(pages).enumerate() {
                let base = (table.first_page + index as u64) << 16;
                let rows = &table.rows[page.first_row as usize..][..page.rows as usize];
                // Rules change only where a row begins.
                let lows = rows.iter().flat_map(|row| [row.low(), row.low().wrapping_sub(1)]);
                for low in lows.chain([0, 0x8000, 0xffff]) {
                    let expected = table.rule_at(Svma(base + u64::from(low)));
                    assert_eq!(maps.rule_at(packed, low), expected, "{base:#x} {low:#x}");
                }
            }
        }
        (packing, maps)
    }

    fn rule(number: usize) -> Rule {
        Rule { cfa_offset: i32::try_from(number).unwrap(), ..Rule::of(CfaKind::Sp) }
    }

    /// A table whose pages have that many rows, over that many rules.
    fn synthetic(pages: &[u32], rules: usize) -> Table {
        let mut table =
            Table { first_page: 7, rules: (0..rules).map(rule).collect(), ..Table::default() };
        for &rows in pages {
            table.pages.push(Page { first_row: table.rows.len() as u32, rows });
            table.rows.extend(
                (0..rows).map(|row| {
                    Row::new((row * (65536 / rows)) as u16, (row as usize % rules) as u16)
                }),
            );
        }
        table
    }

    #[test]
    fn every_rule_of_real_files_is_found() {
        let table =
            |path: &str| CodeFile::parse(fs::read(path).unwrap().as_slice()).unwrap().table();
        let tables = [table("/proc/self/exe"), table("/bin/sh"), table("/proc/self/exe")];
        let (packing, _) = check(&tables);
        assert!(packing.chunk > 0, "more rows than a chunk has");
    }

    #[test]
    fn rows_of_a_page_lie_in_one_chunk_and_rules_are_shared() {
        const ALL: u32 = CHUNK_ROWS as u32;
        let chunks = |tables: &[Table], expected: u32| {
            let (packing, maps) = check(tables);
            assert_eq!((packing.chunk, maps.chunks.len() as u32), (expected - 1, expected));
        };
        chunks(&[synthetic(&[3, 0, 5], 4), synthetic(&[8], 4)], 1);
        chunks(&[synthetic(&[ALL - 1, 1, 1], 40)], 2);
        chunks(&[synthetic(&[10], 3), synthetic(&[ALL], 3), synthetic(&[1], 3)], 3);
        let (_, maps) = check(&[synthetic(&[100], 60), synthetic(&[100], 90)]);
        assert_eq!(maps.rules.len(), 90 + 1);
    }

    #[test]
    fn what_finds_no_room_is_not_packed() {
        let (mut packing, mut maps) = (Packing::new(), Maps::default());
        let mut fits = |table: &Table| packing.add(table, &mut maps).unwrap().is_some();
        assert!(fits(&synthetic(&[1], RULES_MAX - 1)));
        assert!(!fits(&Table { rules: vec![rule(RULES_MAX)], ..synthetic(&[1], 1) }));
        assert!(fits(&synthetic(&[1], 100)));
        assert_eq!(maps.rules.len(), RULES_MAX);

        let mut packing = Packing { chunk: CHUNKS_MAX as u32 - 1, ..Packing::new() };
        let mut fits = |table: &Table| packing.add(table, &mut Maps::default()).unwrap().is_some();
        assert!(!fits(&synthetic(&[CHUNK_ROWS as u32, 1], 4)));
        assert!(fits(&synthetic(&[CHUNK_ROWS as u32 - 1, 1], 4)));
        assert!(!fits(&synthetic(&[1], 4)));
    }

    #[test]
    fn a_page_of_too_many_rows_is_left_by_no_rule() {
        let (mut packing, mut maps) = (Packing::new(), Maps::default());
        let pages = packing.add(&synthetic(&[CHUNK_ROWS as u32 + 1, 2], 4), &mut maps).unwrap();
        let pages = pages.unwrap();
        assert_eq!(maps.rule_at(pages[0], 0x1234), Some(Rule::default()));
        assert_eq!(maps.rule_at(pages[1], 0x8000), Some(rule(1)));
    }
}
