//! Which elements of an array map are free, in runs.

use std::{collections::BTreeMap, ops::Range};

/// The free elements of an array.
#[derive(Debug)]
pub struct Runs {
    /// First index after each free run, by its first index. No two touch.
    free: BTreeMap<u32, u32>,
}

impl Runs {
    /// An array of which every element is free.
    pub fn new(elements: u32) -> Self {
        Self { free: (elements > 0).then_some((0, elements)).into_iter().collect() }
    }

    /// Takes a run of that length, the one with the lowest index; `None` if no free one is so long.
    /// No elements are a run anywhere.
    pub fn take(&mut self, elements: u32) -> Option<Range<u32>> {
        if elements == 0 {
            return Some(0..0);
        }
        let (&start, &end) = self.free.iter().find(|&(start, end)| end - start >= elements)?;
        self.free.remove(&start);
        let taken = start..start + elements;
        if taken.end < end {
            self.free.insert(taken.end, end);
        }
        Some(taken)
    }

    /// Gives back a run that was taken.
    pub fn give_back(&mut self, run: Range<u32>) {
        let Range { mut start, mut end } = run;
        if start == end {
            return;
        }
        if let Some((&before, &its_end)) = self.free.range(..start).next_back()
            && its_end == start
        {
            self.free.remove(&before);
            start = before;
        }
        if let Some(its_end) = self.free.remove(&end) {
            end = its_end;
        }
        self.free.insert(start, end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `Step`s leave free of ten elements.
    enum Step {
        Take(u32, Option<Range<u32>>),
        Give(Range<u32>),
    }

    fn check(steps: &[Step], free: &[(u32, u32)]) {
        let mut runs = Runs::new(10);
        for step in steps {
            match step {
                Step::Take(elements, expected) => assert_eq!(runs.take(*elements), *expected),
                Step::Give(run) => runs.give_back(run.clone()),
            }
        }
        let left: Vec<_> = runs.free.into_iter().collect();
        assert_eq!(left, free);
    }

    #[test]
    fn runs_are_taken_from_the_lowest_place_that_is_long_enough() {
        use Step::{Give, Take};
        check(&[Take(4, Some(0..4)), Take(6, Some(4..10)), Take(1, None)], &[]);
        check(&[Take(4, Some(0..4)), Take(7, None)], &[(4, 10)]);
        check(
            &[Take(2, Some(0..2)), Take(3, Some(2..5)), Give(0..2), Take(3, Some(5..8))],
            &[(0, 2), (8, 10)],
        );
        check(&[Take(0, Some(0..0)), Give(0..0)], &[(0, 10)]);
    }

    #[test]
    fn runs_that_are_given_back_join_their_neighbours() {
        use Step::{Give, Take};
        let three = [Take(3, Some(0..3)), Take(3, Some(3..6)), Take(4, Some(6..10))];
        let after = |given: Vec<Range<u32>>, free: &[(u32, u32)]| {
            let taken = three.iter().map(|step| match step {
                Take(elements, expected) => Take(*elements, expected.clone()),
                Give(run) => Give(run.clone()),
            });
            check(&taken.chain(given.into_iter().map(Give)).collect::<Vec<_>>(), free);
        };
        after(vec![0..3, 6..10], &[(0, 3), (6, 10)]);
        after(vec![0..3, 6..10, 3..6], &[(0, 10)]);
        after(vec![3..6, 0..3], &[(0, 6)]);
        after(vec![3..6, 6..10], &[(3, 10)]);
    }
}
