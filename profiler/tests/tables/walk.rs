//! A walk by tables: the loop around the step, as the kernel side goes.

use std::{ops::Range, rc::Rc};

use profiler_common::{
    stack::USER_FRAMES,
    table::{CfaKind, Rule},
    unwind::{Failure, Frame, Position, Step, step},
};
use stallscope::{
    units::{Avma, Svma},
    unwind::{Table, WalkedFrame, space::WalkEnd},
};

/// The code of one process.
#[derive(Default)]
pub struct Tables {
    modules: Vec<(Range<u64>, u64, Rc<Table>)>,
}

impl Tables {
    pub fn map(&mut self, range: Range<Avma>, bias: u64, table: Rc<Table>) {
        self.modules.push((range.start.0..range.end.0, bias, table));
    }

    /// The rule for an address, `None` if it lies in no code.
    pub fn rule_at(&self, address: u64) -> Option<Rule> {
        let (_, bias, table) = self.modules.iter().find(|(range, ..)| range.contains(&address))?;
        table.rule_at(Svma(address.wrapping_sub(*bias)))
    }

    /// Walks up from a frame. `end_of_stack` tells memory that was not copied from memory that is
    /// none.
    pub fn walk(
        &self,
        mut frame: Frame,
        end_of_stack: u64,
        read: impl Fn(u64) -> Option<u64>,
    ) -> (Vec<WalkedFrame>, WalkEnd) {
        let mut frames = Vec::new();
        loop {
            let Some(rule) = self.rule_at(frame.lookup()) else {
                return (frames, WalkEnd::NoMapping(Avma(frame.ip)));
            };
            if frames.len() == USER_FRAMES {
                return (frames, WalkEnd::TooDeep);
            }
            let is_return_address = frame.position != Position::Interrupted;
            frames.push(WalkedFrame { address: Avma(frame.ip), is_return_address });
            let is_caller = frame.position == Position::Caller;
            if rule.cfa == CfaKind::Uncovered
                && is_caller
                && (!frame.bp.is_multiple_of(8) || frame.bp < frame.sp)
            {
                return (frames, WalkEnd::BadFramePointer);
            }
            match step(rule, frame, &read) {
                Step::To(caller) => frame = caller,
                Step::Outermost => return (frames, WalkEnd::Complete),
                Step::Failed(failure) => {
                    let end = match failure {
                        Failure::Unreadable(address) if address >= end_of_stack => {
                            WalkEnd::SliceTooShort
                        }
                        Failure::Unreadable(_) => WalkEnd::Unreadable,
                        Failure::Unsupported => WalkEnd::Unsupported,
                        Failure::NotAdvancing => WalkEnd::NotAdvancing,
                        Failure::RegisterLost => WalkEnd::RegisterLost,
                    };
                    return (frames, end);
                }
            }
        }
    }
}
