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
    user: HashMap<WalkedStack, UserStackId>,
    /// By addresses as the kernel side sends them.
    kernel: HashMap<Vec<u64>, KernelStackId>,
}

/// A user stack without a number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WalkedStack {
    /// The frames, leaf first.
    pub frames: Vec<RawFrame>,
    /// How the walk ended.
    pub end: StackEnd,
    /// How many of the frames were found by frame pointer.
    pub by_frame_pointer: u32,
}

impl WalkedStack {
    fn numbered(self, id: UserStackId) -> UserStack {
        let Self { frames, end, by_frame_pointer } = self;
        UserStack { id, frames, end, by_frame_pointer }
    }
}

impl StackTable {
    /// The number of a user stack, and the stack itself if it is new.
    pub fn user(&self, stack: WalkedStack) -> (UserStackId, Option<UserStack>) {
        let next = UserStackId(self.user.len() as u32);
        match self.user.get(&stack) {
            Some(&id) => (id, None),
            None => (next, Some(stack.numbered(next))),
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
        let UserStack { id, frames, end, by_frame_pointer } = stack;
        self.user.insert(WalkedStack { frames, end, by_frame_pointer }, id);
        id
    }

    /// Keeps a kernel stack that was written.
    pub fn keep_kernel(&mut self, stack: &KernelStack) -> KernelStackId {
        self.kernel.insert(stack.frames.iter().map(|frame| frame.0).collect(), stack.id);
        stack.id
    }

    /// Every user stack, by number.
    pub fn all_user(&self) -> HashMap<UserStackId, UserStack> {
        self.user.iter().map(|(stack, &id)| (id, stack.clone().numbered(id))).collect()
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
