//! The matrix of programs whose stacks are known by construction: every way in which compilers,
//! libraries and runtimes make stacks, recorded and compared frame by frame.
//!
//! Each cell of the matrix is data, [`cell::Cell`], and a test of its own. Like all tests on the real
//! kernel they fail with the reason where the rights to record are missing.

#![cfg(feature = "live")]
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

mod c;
mod cell;
mod chain;
mod changes;
mod cpp;
mod program;
mod runtimes;
mod rust;
#[path = "../live/support/mod.rs"]
#[expect(dead_code, reason = "the other live tests use more of it")]
mod support;

/// A test for each cell, and the list of their programs.
macro_rules! cells {
    ($($(#[$meta:meta])* $name:ident: $cell:expr,)+) => {
        $(
            $(#[$meta])*
            #[test]
            fn $name() {
                $crate::cell::check(concat!(module_path!(), "::", stringify!($name)), &$cell);
            }
        )+

        /// What the cells of this file run.
        pub fn programs() -> Vec<$crate::program::Program> {
            [$($cell.programs),+].concat()
        }
    };
}
use cells;

/// Needs no rights. Run alone before all others it makes what they run, as this user.
#[test]
fn every_program_builds() {
    let programs = [
        c::programs(),
        cpp::programs(),
        rust::programs(),
        changes::programs(),
        runtimes::programs(),
    ]
    .concat();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let builders = std::thread::available_parallelism().unwrap().get();
    std::thread::scope(|scope| {
        for _ in 0..builders {
            scope.spawn(|| {
                while let Some(program) =
                    programs.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                {
                    program.build();
                }
            });
        }
    });
}
