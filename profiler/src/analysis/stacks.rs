//! The stacks of a recording with names: as frames of the report, and as the runtime room reads them.

use std::collections::HashMap;

use super::report::{Frame, FrameKind, KERNEL_HIDDEN, Origin, StackQuality};
use crate::{
    recording::{
        CodeAddress, FrameKind as RawKind, KernelStackId, Missing, Part, RawFrame, Recording,
        ResolvedName, StackEnd, UserStack, UserStackId,
    },
    runtime,
    symbols::{self, SymbolTable},
    units::Avma,
};

/// How many frames a hook can put before the caller of the scheduler.
const HOOK_FRAMES: usize = 8;

/// Every stack of a recording, each address named once.
pub struct Stacks<'a> {
    recording: &'a Recording,
    places: HashMap<CodeAddress, Place>,
}

/// What stands at one looked-up address.
struct Place {
    /// Outermost function first.
    report: Vec<Frame>,
    /// Innermost function first.
    runtime: Vec<runtime::Frame>,
}

impl<'a> Stacks<'a> {
    /// Names every address on every stack of `recording`.
    pub fn resolve(recording: &'a Recording, names: &SymbolTable) -> Self {
        let user = recording.user_stacks.values().flat_map(|stack| &stack.frames).copied();
        let kernel = recording.kernel_stacks.values().flat_map(|stack| &stack.frames);
        let mut places = HashMap::new();
        for frame in user.chain(kernel.map(|address| kernel_frame(*address))) {
            let address = symbols::lookup_address(&frame);
            places.entry(address).or_insert_with(|| place(recording, address, names));
        }
        Self { recording, places }
    }

    /// A user stack as the runtime room reads it.
    pub fn user(&self, id: UserStackId) -> Option<runtime::Stack<'_>> {
        let stack = self.recording.user_stacks.get(&id)?;
        let frames = stack.frames.iter().flat_map(|frame| &self.place(frame).runtime).collect();
        Some(runtime::Stack { frames, end: stack.end })
    }

    /// The names on a kernel stack, leaf first.
    pub fn kernel_names(&self, id: KernelStackId) -> impl Iterator<Item = &str> {
        self.names_of(self.kernel(id))
    }

    /// The names on the kernel stack of a wake-up, leaf first: no scheduler is in the way there, and
    /// an interrupt can come upon one.
    pub fn waker_names(&self, id: KernelStackId) -> impl Iterator<Item = &str> {
        let stack = self.recording.kernel_stacks.get(&id);
        self.names_of(stack.map_or(&[], |stack| &stack.frames))
    }

    fn names_of<'s>(&'s self, stack: &'s [Avma]) -> impl Iterator<Item = &'s str> {
        stack
            .iter()
            .flat_map(|address| &self.place(&kernel_frame(*address)).runtime)
            .filter_map(|frame| frame.name.as_deref())
    }

    /// How the walk of a user stack ended.
    pub fn quality(&self, user: Option<UserStackId>) -> StackQuality {
        match self.walk(user).map(|stack| stack.end) {
            Some(StackEnd::Complete) => StackQuality::Complete,
            Some(StackEnd::Incomplete(why)) => match why.part() {
                Part::Truncated => StackQuality::Truncated,
                Part::Broken => StackQuality::Broken,
            },
            None => StackQuality::Missing,
        }
    }

    /// A user stack as it was walked.
    pub fn walk(&self, user: Option<UserStackId>) -> Option<&UserStack> {
        user.and_then(|id| self.recording.user_stacks.get(&id))
    }

    /// The report's frames: root to leaf, user then kernel.
    pub fn frames(&self, user: Option<UserStackId>, kernel: Option<KernelStackId>) -> Vec<Frame> {
        let kernel = kernel.map_or(&[][..], |id| self.kernel(id));
        let kernel = kernel.iter().rev().map(|address| kernel_frame(*address));
        let kernel = kernel.flat_map(|frame| self.place(&frame).report.iter().cloned());
        let mut frames = user.map_or_else(Vec::new, |id| self.user_frames(id));
        frames.extend(kernel);
        frames
    }

    /// The report's frames of a user stack, root to leaf.
    fn user_frames(&self, id: UserStackId) -> Vec<Frame> {
        let (Some(walked), Some(stack)) = (self.recording.user_stacks.get(&id), self.user(id))
        else {
            return Vec::new();
        };
        let frames = walked.frames.iter().rev().flat_map(|frame| &self.place(frame).report);
        let left_out = runtime::plumbing::left_out(&stack.frames);
        let read = frames.zip(left_out.iter().rev()).map(|(frame, left_out)| {
            let origin = match (frame.origin, left_out) {
                (_, true) => Origin::Plumbing,
                (Origin::Plumbing, false) => Origin::Library,
                (origin, false) => origin,
            };
            Frame { origin, ..frame.clone() }
        });
        read.collect()
    }

    /// A kernel stack, leaf first, from the caller of the scheduler on. What the hook put before
    /// it depends on who else listens there: the scheduler itself, its tracepoint, the program.
    fn kernel(&self, id: KernelStackId) -> &[Avma] {
        let Some(stack) = self.recording.kernel_stacks.get(&id) else { return &[] };
        let is_scheduler = |address: &Avma| {
            let frames = &self.place(&kernel_frame(*address)).runtime;
            frames.iter().any(|frame| frame.name.as_deref() == Some("__schedule"))
        };
        let scheduler = stack.frames.iter().take(HOOK_FRAMES).rposition(is_scheduler);
        &stack.frames[scheduler.map_or(0, |at| at + 1)..]
    }

    fn place(&self, frame: &RawFrame) -> &Place {
        &self.places[&symbols::lookup_address(frame)]
    }
}

fn kernel_frame(address: Avma) -> RawFrame {
    RawFrame { address: CodeAddress::Kernel(address), kind: RawKind::ReturnAddress }
}

fn place(recording: &Recording, address: CodeAddress, symbols: &SymbolTable) -> Place {
    let (module, at, kind) = match address {
        CodeAddress::Module(id, at) => {
            let path = recording.modules.get(&id).map(|module| module.path.to_string_lossy());
            let path = path.map_or_else(|| "[unknown]".to_owned(), std::borrow::Cow::into_owned);
            (Some(path), at.0, FrameKind::Native)
        }
        CodeAddress::Memory(at) => (None, at.0, FrameKind::Jit),
        CodeAddress::Kernel(at) => (None, at.0, FrameKind::Kernel),
    };
    let frame = Frame {
        function: None,
        file: None,
        line: None,
        module,
        address: Some(format!("{at:#x}")),
        kind,
        missing: None,
        // Told below, by name and file.
        origin: Origin::Library,
    };
    let mut report = match symbols.get(&address) {
        ResolvedName::Missing(why) => {
            vec![Frame { missing: Some(missing(*why).to_owned()), ..frame }]
        }
        ResolvedName::Frames(named) => named
            .iter()
            .enumerate()
            .map(|(depth, named)| Frame {
                function: Some(named.function.clone()),
                file: named.file.clone(),
                line: named.line,
                kind: if depth > 0 { FrameKind::Inlined } else { kind },
                ..frame.clone()
            })
            .collect(),
    };
    let read = |frame: &Frame| {
        let (function, file) = (frame.function.as_deref(), frame.file.as_deref());
        runtime::Frame::new(address, function, file, frame.module.as_deref())
    };
    let mut runtime: Vec<_> = report.iter().map(read).collect();
    for (frame, read) in report.iter_mut().zip(&runtime) {
        frame.origin = if kind == FrameKind::Kernel { Origin::Library } else { read.origin };
    }
    if let ([frame], Some(function)) = (&mut runtime[..], symbols.nameless(&address)) {
        let start = CodeAddress::Module(function.module, function.start);
        frame.body = Some(runtime::Body::new(start, function.mentions.iter().map(String::as_str)));
    }
    runtime.reverse();
    Place { report, runtime }
}

/// `module+0xaddress`, or the address alone where there is no file.
pub fn bare_place(recording: &Recording, address: CodeAddress) -> String {
    match address {
        CodeAddress::Module(id, at) => match recording.modules.get(&id) {
            Some(module) => format!("{}+{:#x}", module.path.display(), at.0),
            None => format!("[unknown]+{:#x}", at.0),
        },
        CodeAddress::Memory(at) | CodeAddress::Kernel(at) => format!("{:#x}", at.0),
    }
}

fn missing(why: Missing) -> &'static str {
    match why {
        Missing::FileUnreadable => "file-unreadable",
        Missing::BuildIdMismatch => "build-id-mismatch",
        Missing::NoSymbols => "no-symbols",
        Missing::NoSymbolHere => "no-symbol-here",
        Missing::NotInFile => "not-in-file",
        Missing::KernelHidden => KERNEL_HIDDEN,
        Missing::OtherBoot => "other-boot",
    }
}
