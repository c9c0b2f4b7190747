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
    "~.. cell_thread cell_huge cell_nap ..",
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
    "~.. cell_thread cell_altstack .. cell_elsewhere cell_nap ..",
    "?.. cell_thread cell_interrupted cell_spin .. cell_alarm cell_nap ..",
    "?.. cell_thread cell_interrupted cell_spin cell_spin_leaf .. cell_alarm cell_nap ..",
    "?.. cell_thread cell_interrupted .. cell_alarm cell_nap ..",
    ".. cell_thread cell_vfork ..",
    ".. cell_coroutine cell_coroutine_inner cell_nap ..",
];

fn c(name: &'static str, compiler: Compiler, options: &[&'static str]) -> Cell {
    let options = [&["-fomit-frame-pointer", "-D_GNU_SOURCE"], options].concat();
    Cell {
        programs: vec![Program { name, compiler, options, sources: SOURCES, stripped: false }],
        start: Start::Plain,
        args: vec!["frames", "huge", "waits", "signals", "stacks"],
        chains: CHAINS.iter().map(|&chain| chain.to_owned()).collect(),
        ends: Ends::Complete,
    }
}

fn gcc(name: &'static str, options: &[&'static str]) -> Cell {
    c(name, Compiler::Gcc, options)
}

fn clang(name: &'static str, options: &[&'static str]) -> Cell {
    c(name, Compiler::Clang, options)
}

/// Only kinds of frames: without tables a leaf whose prologue is not over cannot be left for certain,
/// and these sleep in a C library that has tables.
fn frames_of(mut cell: Cell) -> Cell {
    cell.args = vec!["frames", "huge"];
    cell.chains.truncate(8);
    cell
}

/// Code without unwind information and without frame pointers cannot be left for certain.
fn marked(cell: Cell) -> Cell {
    Cell { ends: Ends::Marked { complete_min: 0.04 }, ..cell }
}

cells! {
    gcc_not_optimised: gcc("gcc-O0", &["-O0"]),
    gcc_for_debugging: gcc("gcc-Og", &["-Og"]),
    gcc_for_size: gcc("gcc-Os", &["-Os"]),
    gcc_optimised: gcc("gcc-O2", &["-O2"]),
    gcc_optimised_more: gcc("gcc-O3", &["-O3"]),
    gcc_for_haswell: gcc("gcc-haswell", &["-O3", "-march=haswell"]),
    gcc_with_frame_pointers: gcc("gcc-fp", &["-O2", "-fno-omit-frame-pointer"]),
    gcc_at_link_time: gcc("gcc-lto", &["-O2", "-flto"]),
    gcc_hardened: gcc(
        "gcc-hardened",
        &["-O2", "-fstack-protector-all", "-fstack-clash-protection", "-fcf-protection=full"],
    ),
    gcc_at_a_fixed_address: gcc("gcc-no-pie", &["-O2", "-no-pie"]),
    gcc_bound_lazily: gcc("gcc-lazy", &["-O2", "-Wl,-z,lazy"]),
    gcc_static: gcc("gcc-static", &["-O2", "-static"]),
    gcc_static_at_any_address: gcc("gcc-static-pie", &["-O2", "-static-pie"]),
    gcc_debug_frame_alone: gcc("gcc-debug-frame", &["-O2", "-g", "-fno-asynchronous-unwind-tables"]),
    gcc_frame_pointers_alone: frames_of(gcc(
        "gcc-fp-alone",
        &["-O2", "-fno-omit-frame-pointer", "-fno-asynchronous-unwind-tables"],
    )),
    gcc_neither: marked(gcc("gcc-neither", &["-O2", "-fno-asynchronous-unwind-tables"])),
    clang_not_optimised: clang("clang-O0", &["-O0"]),
    clang_for_size: clang("clang-Oz", &["-Oz"]),
    clang_optimised: clang("clang-O2", &["-O2"]),
    clang_for_haswell: clang("clang-haswell", &["-O3", "-march=haswell"]),
    clang_linked_by_lld: clang("clang-lld", &["-O2", "-fuse-ld=lld"]),
    clang_linked_by_lld_static: clang("clang-lld-static", &["-O2", "-fuse-ld=lld", "-static"]),
    clang_linked_by_lld_at_a_fixed_address: clang(
        "clang-lld-no-pie",
        &["-O2", "-fuse-ld=lld", "-fno-pie", "-no-pie"],
    ),
}
