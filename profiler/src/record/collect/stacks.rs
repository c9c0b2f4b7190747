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
    /// By addresses as the kernel side sends them.
    kernel: HashMap<Vec<u64>, KernelStackId>,
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
    pub fn kernel(&self, frames: &[u64]) -> (KernelStackId, Option<KernelStack>) {
        if let Some(&id) = self.kernel.get(frames) {
            return (id, None);
        }
        let id = KernelStackId(self.kernel.len() as u32);
        (id, Some(KernelStack { id, frames: frames.iter().copied().map(Avma).collect() }))
    }

    /// Keeps a user stack that was written.
    pub fn keep_user(&mut self, stack: UserStack) -> UserStackId {
        self.user.insert((stack.frames, stack.end), stack.id);
        stack.id
    }

    /// Keeps a kernel stack that was written.
    pub fn keep_kernel(&mut self, stack: &KernelStack) -> KernelStackId {
        self.kernel.insert(stack.frames.iter().map(|frame| frame.0).collect(), stack.id);
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
            .map(|(frames, &id)| {
                (id, KernelStack { id, frames: frames.iter().copied().map(Avma).collect() })
            })
            .collect()
    }
}
