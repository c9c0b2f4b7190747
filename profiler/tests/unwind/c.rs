//! C programs: every kind of frame, wait, signal and foreign stack, by several compilers.

use crate::{
    cell::{Cell, Ends, Start},
    cells,
    program::{Compiler, Program},
};

const SOURCES: &[&str] = &["shapes.c", "cell.c", "frames.c", "waits.c", "signals.c", "stacks.c"];

/// What the shapes' stacks are, root first.
const CHAINS: &[&str] = &[
    "_start .. main cell_until_closed ..",
    ".. cell_thread cell_alloca cell_nap ..",
    ".. cell_thread cell_vla cell_nap ..",
    ".. cell_thread cell_drap cell_aligned cell_nap ..",
    ".. cell_thread cell_realigned cell_nap ..",
    ".. cell_thread cell_huge cell_nap ..",
    ".. cell_thread cell_qsort .. cell_compare cell_nap ..",
    ".. cell_thread cell_saves cell_saving cell_nap ..",
    ".. cell_thread cell_futex ..",
    ".. cell_thread cell_pipe ..",
    ".. cell_thread cell_pipe_writer cell_nap ..",
    "?.. cell_thread cell_pipe_writer ..",
    ".. cell_thread cell_poll ..",
    ".. cell_thread cell_epoll ..",
    ".. cell_thread cell_nanosleep ..",
    ".. cell_thread cell_fault cell_touch",
    "?.. cell_thread cell_fault ..",
    ".. cell_thread cell_fault_server cell_nap ..",
    "?.. cell_thread cell_fault_server ..",
    ".. cell_thread cell_raise .. cell_handler cell_nap ..",
    ".. cell_thread cell_altstack .. cell_elsewhere cell_nap ..",
    "?.. cell_thread cell_interrupted cell_spin .. cell_alarm cell_nap ..",
    "?.. cell_thread cell_interrupted cell_spin cell_spin_leaf .. cell_alarm cell_nap ..",
    "?.. cell_thread cell_interrupted .. cell_alarm cell_nap ..",
    ".. cell_thread cell_vfork ..",
    ".. cell_coroutine cell_coroutine_inner cell_nap ..",
];

fn c(name: &'static str, compiler: Compiler, options: &[&'static str]) -> Cell {
    let options = [options, &["-fomit-frame-pointer", "-D_GNU_SOURCE"]].concat();
    Cell {
        programs: vec![Program { name, compiler, options, sources: SOURCES, stripped: false }],
        start: Start::Plain,
        args: vec!["frames", "huge", "waits", "signals", "stacks"],
        chains: CHAINS.iter().map(|&chain| chain.to_owned()).collect(),
        ends: Ends::Complete,
    }
}

cells! {
    gcc_not_optimised: c("gcc-O0", Compiler::Gcc, &["-O0"]),
    gcc_for_size: c("gcc-Os", Compiler::Gcc, &["-Os"]),
    gcc_optimised: c("gcc-O2", Compiler::Gcc, &["-O2"]),
    gcc_optimised_more: c("gcc-O3", Compiler::Gcc, &["-O3"]),
    gcc_for_haswell: c("gcc-haswell", Compiler::Gcc, &["-O3", "-march=haswell"]),
    gcc_at_a_fixed_address: c("gcc-no-pie", Compiler::Gcc, &["-O2", "-no-pie"]),
    gcc_static: c("gcc-static", Compiler::Gcc, &["-O2", "-static"]),
    clang_optimised: c("clang-O2", Compiler::Clang, &["-O2"]),
    clang_linked_by_lld: c("clang-lld", Compiler::Clang, &["-O2", "-fuse-ld=lld"]),
}
