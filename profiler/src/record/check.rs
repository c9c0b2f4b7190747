//! The kernel side's user stacks held against walks of copies of the same stacks. Pure.

use std::collections::HashMap;

use super::collect::stacks::WalkedStack;
use crate::recording::{RawFrame, StackCheck, StackDifference, StackEnd, Why};

/// Distinct differences that are kept whole.
const SAMPLES: usize = 8;

/// How two walks of one stack compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The same frames and the same end.
    Equal,
    /// One of them ended early, for a reason; up to there they are the same.
    PrefixEqual(String),
    /// They found different frames.
    Different(String),
}

/// Compares what the kernel side found with what the walk of a copy found.
///
/// Where one of them says that it is not whole, only what both have can be compared. Of the reasons
/// that are told, the end of the copy comes first: it says that there was no more to compare with.
pub fn compare(kernel: &WalkedStack, copy: &WalkedStack) -> Verdict {
    let (all, checked) = (kernel.frames.as_slice(), copy.frames.as_slice());
    let kernel_why = incomplete(kernel).map(|why| format!("kernel_{}", why.name()));
    let copy_why = incomplete(copy).map(|why| match why {
        Why::SliceTooShort => why.name().to_owned(),
        why => format!("check_{}", why.name()),
    });
    if all == checked {
        return match (kernel.end == copy.end, copy_why.or(kernel_why)) {
            (true, _) | (false, None) => Verdict::Equal,
            (false, Some(why)) => Verdict::PrefixEqual(why),
        };
    }
    if all.starts_with(checked) {
        let why = copy_why.map(Verdict::PrefixEqual);
        return why.unwrap_or_else(|| Verdict::Different("check_ends_early".to_owned()));
    }
    if checked.starts_with(all) {
        let why = kernel_why.map(Verdict::PrefixEqual);
        return why.unwrap_or_else(|| Verdict::Different("kernel_ends_early".to_owned()));
    }
    Verdict::Different("frames_differ".to_owned())
}

fn incomplete(stack: &WalkedStack) -> Option<Why> {
    match stack.end {
        StackEnd::Complete => None,
        StackEnd::Incomplete(why) => Some(why),
    }
}

/// All comparisons so far.
#[derive(Debug, Default)]
pub struct Checker {
    counts: StackCheck,
    /// Where in the samples the pairs of stacks that differ are.
    different: Samples,
    /// As before, of those that are the same as far as they go.
    prefix: Samples,
}

/// Some pairs of stacks, each with how often it was seen.
#[derive(Debug, Default)]
struct Samples {
    known: HashMap<(Vec<RawFrame>, Vec<RawFrame>), usize>,
    all: Vec<StackDifference>,
}

impl Checker {
    /// Compares two walks of one stack and counts the outcome.
    pub fn check(&mut self, kernel: WalkedStack, copy: &WalkedStack) {
        self.counts.compared += 1;
        let (counter, why, samples) = match compare(&kernel, copy) {
            Verdict::Equal => {
                self.counts.equal += 1;
                return;
            }
            Verdict::PrefixEqual(why) => (&mut self.counts.prefix_equal, why, &mut self.prefix),
            Verdict::Different(why) => (&mut self.counts.different, why, &mut self.different),
        };
        *counter += 1;
        *self.counts.why.entry(why.clone()).or_default() += 1;
        samples.add(why, kernel.frames, copy.frames.clone());
    }

    /// What came out.
    pub fn finish(self) -> StackCheck {
        let Self { counts, different, prefix } = self;
        let differences = different.all.into_iter().chain(prefix.all).take(SAMPLES).collect();
        StackCheck { differences, ..counts }
    }
}

impl Samples {
    fn add(&mut self, why: String, kernel: Vec<RawFrame>, check: Vec<RawFrame>) {
        let key = (kernel, check);
        if let Some(&at) = self.known.get(&key) {
            self.all[at].count += 1;
        } else if self.all.len() < SAMPLES {
            let (kernel, check) = key.clone();
            self.known.insert(key, self.all.len());
            self.all.push(StackDifference { why, count: 1, kernel, check });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        recording::{CodeAddress, FrameKind},
        units::Avma,
    };

    fn stack(addresses: &[u64], end: StackEnd) -> WalkedStack {
        let frame = |&address: &u64| RawFrame {
            address: CodeAddress::Memory(Avma(address)),
            kind: FrameKind::ReturnAddress,
        };
        WalkedStack { frames: addresses.iter().map(frame).collect(), end, by_frame_pointer: 0 }
    }

    const WHOLE: StackEnd = StackEnd::Complete;

    fn cut(why: Why) -> StackEnd {
        StackEnd::Incomplete(why)
    }

    #[test]
    fn stacks_are_compared_as_far_as_both_say_that_they_go() {
        let equal = || Verdict::Equal;
        let prefix = |why: &str| Verdict::PrefixEqual(why.to_owned());
        let different = |why: &str| Verdict::Different(why.to_owned());
        let check = |kernel: (&[u64], StackEnd), copy: (&[u64], StackEnd), expected| {
            let verdict = compare(&stack(kernel.0, kernel.1), &stack(copy.0, copy.1));
            assert_eq!(verdict, expected, "{kernel:?} {copy:?}");
        };
        let short = cut(Why::SliceTooShort);
        let lost = cut(Why::RegisterLost);
        check((&[1, 2, 3], WHOLE), (&[1, 2, 3], WHOLE), equal());
        check((&[1, 2], lost), (&[1, 2], lost), equal());
        // The copy ended: what it has is the same, or it is not.
        check((&[1, 2, 3], WHOLE), (&[1, 2], short), prefix("slice_too_short"));
        check((&[1, 2, 3], WHOLE), (&[1, 2, 3], short), prefix("slice_too_short"));
        check((&[1, 2, 3], lost), (&[1, 2], short), prefix("slice_too_short"));
        check((&[1, 2, 3], WHOLE), (&[1, 4], short), different("frames_differ"));
        // The kernel side could not go on.
        check((&[1], cut(Why::Unsupported)), (&[1, 2], WHOLE), prefix("kernel_unsupported"));
        check((&[1, 2], cut(Why::NoTable)), (&[1, 2], WHOLE), prefix("kernel_no_table"));
        check((&[1], lost), (&[2, 3], WHOLE), different("frames_differ"));
        check((&[], cut(Why::NoMapping)), (&[1, 2], WHOLE), prefix("kernel_no_mapping"));
        // The other one could not, with all that it has.
        check((&[1, 2], WHOLE), (&[1], lost), prefix("check_register_lost"));
        // One takes for the end what the other goes on from.
        check((&[1], WHOLE), (&[1, 2], WHOLE), different("kernel_ends_early"));
        check((&[1, 2], WHOLE), (&[1], WHOLE), different("check_ends_early"));
        check((&[1], WHOLE), (&[1, 2], short), different("kernel_ends_early"));
        check((&[1, 2], short), (&[1], WHOLE), different("check_ends_early"));
    }

    #[test]
    fn a_frame_that_was_interrupted_is_not_one_that_called() {
        let called = stack(&[1], WHOLE);
        let mut interrupted = called.clone();
        interrupted.frames[0].kind = FrameKind::InstructionPointer;
        let expected = Verdict::Different("frames_differ".to_owned());
        assert_eq!(compare(&called, &interrupted), expected);
    }

    #[test]
    fn each_pair_is_kept_once_and_the_different_ones_first() {
        let mut checker = Checker::default();
        let whole = stack(&[1, 2, 3], WHOLE);
        checker.check(whole.clone(), &whole);
        for n in 10..30 {
            checker.check(stack(&[1, 2, n], WHOLE), &stack(&[1, 2], cut(Why::SliceTooShort)));
        }
        checker.check(whole.clone(), &stack(&[1, 9], WHOLE));
        checker.check(whole.clone(), &stack(&[1, 9], WHOLE));
        let found = checker.finish();
        let sums = (found.compared, found.equal, found.prefix_equal, found.different);
        assert_eq!(sums, (23, 1, 20, 2));
        let why: Vec<_> = found.why.iter().map(|(why, n)| (why.as_str(), *n)).collect();
        assert_eq!(why, [("frames_differ", 2), ("slice_too_short", 20)]);
        let first = &found.differences[0];
        assert_eq!((first.why.as_str(), first.count), ("frames_differ", 2));
        assert_eq!(first.kernel, whole.frames);
        assert_eq!(found.differences.len(), SAMPLES);
    }
}
