//! Stacks and their numbers: each is written once, when it is first seen.

use std::collections::HashMap;

use crate::{
    recording::{KernelStack, KernelStackId, RawFrame, StackEnd, UserStack, UserStackId},
    units::Avma,
};

/// Every stack so far. A stack is kept only once it is written: one that the recording refused has
/// no number.
#[derive(Debug, Default)]
pub struct StackTable {
    user: HashMap<(Vec<RawFrame>, StackEnd), UserStackId>,
    kernel: HashMap<Vec<Avma>, KernelStackId>,
}

impl StackTable {
    /// The number of a user stack, and the stack itself if it is new.
    pub fn user(&self, frames: Vec<RawFrame>, end: StackEnd) -> (UserStackId, Option<UserStack>) {
        let next = UserStackId(self.user.len() as u32);
        let key = (frames, end);
        match self.user.get(&key) {
            Some(&id) => (id, None),
            None => (next, Some(UserStack { id: next, frames: key.0, end })),
        }
    }

    /// The number of a kernel stack, and the stack itself if it is new.
    pub fn kernel(&self, frames: Vec<Avma>) -> (KernelStackId, Option<KernelStack>) {
        let next = KernelStackId(self.kernel.len() as u32);
        match self.kernel.get(&frames) {
            Some(&id) => (id, None),
            None => (next, Some(KernelStack { id: next, frames })),
        }
    }

    /// Keeps a user stack that was written.
    pub fn keep_user(&mut self, stack: UserStack) -> UserStackId {
        self.user.insert((stack.frames, stack.end), stack.id);
        stack.id
    }

    /// Keeps a kernel stack that was written.
    pub fn keep_kernel(&mut self, stack: KernelStack) -> KernelStackId {
        self.kernel.insert(stack.frames, stack.id);
        stack.id
    }

    /// Every user stack, by number.
    pub fn all_user(&self) -> HashMap<UserStackId, UserStack> {
        self.user
            .iter()
            .map(|((frames, end), &id)| (id, UserStack { id, frames: frames.clone(), end: *end }))
            .collect()
    }

    /// Every kernel stack, by number.
    pub fn all_kernel(&self) -> HashMap<KernelStackId, KernelStack> {
        self.kernel
            .iter()
            .map(|(frames, &id)| (id, KernelStack { id, frames: frames.clone() }))
            .collect()
    }
}
