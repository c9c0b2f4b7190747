//! Rust programs: chains 0, 20 and 200 calls deep, as release builds come.

use crate::{
    cell::{Cell, Ends, Start},
    cells,
    program::{Compiler, Program},
};

const CHAINS: &[&str] = &[
    "_start .. cell_work cell_descend*21 cell_sleep ..",
    ".. cell_work cell_descend*1 cell_sleep ..",
    ".. cell_work cell_descend*21 cell_sleep ..",
    ".. cell_work cell_descend*201 cell_sleep ..",
    ".. cell_work cell_descend*21 cell_condvar ..",
    ".. cell_work cell_descend*21 cell_channel ..",
    ".. cell_work cell_descend*21 cell_socket ..",
    "?.. cell_until_closed ..",
];

/// With the default of what a panic does.
const UNWINDING: &str =
    ".. cell_work cell_descend*4 cell_catch ..0 cell_unwinding ..0 cell_sleep ..";

/// Inside of a handler of a signal.
const SIGNAL: &str = ".. cell_work cell_descend*4 cell_raise .. cell_handler cell_sleep ..";

const MUSL: &[&str] = &["--target", "x86_64-unknown-linux-musl"];

fn program(name: &'static str, options: &[&'static str], stripped: bool) -> Program {
    let options = [&["--edition", "2024", "-C", "opt-level=3"], options].concat();
    Program { name, compiler: Compiler::Rustc, options, sources: &["depth.rs"], stripped }
}

fn unwinds(program: Program) -> Cell {
    let mut cell = aborts(program);
    cell.args.push("unwind");
    cell.chains.push(UNWINDING.to_owned());
    cell
}

fn signals(mut cell: Cell) -> Cell {
    cell.args.push("signals");
    cell.chains.push(SIGNAL.to_owned());
    cell
}

fn aborts(program: Program) -> Cell {
    Cell {
        programs: vec![program],
        start: Start::Plain,
        args: vec![],
        chains: CHAINS.iter().map(|&chain| chain.to_owned()).collect(),
        ends: Ends::Complete,
    }
}

/// The function that musl begins threads with has no unwind information.
fn marked(program: Program) -> Cell {
    Cell { ends: Ends::Marked { complete_min: 0.0 }, ..aborts(program) }
}

cells! {
    release: signals(unwinds(program("rust", &[], false))),
    stripped: unwinds(program("rust-stripped", &[], true)),
    panic_abort: aborts(program("rust-abort", &["-C", "panic=abort"], false)),
    lto: unwinds(program("rust-lto", &["-C", "lto=fat"], false)),
    lto_panic_abort: aborts(program("rust-lto-abort", &["-C", "lto=fat", "-C", "panic=abort"], false)),
    for_size: unwinds(program("rust-s", &["-C", "opt-level=s"], false)),
    for_less_size: unwinds(program("rust-z", &["-C", "opt-level=z"], false)),
    not_optimised: unwinds(program("rust-0", &["-C", "opt-level=0"], false)),
    with_frame_pointers: unwinds(program("rust-fp", &["-C", "force-frame-pointers=yes"], false)),
    at_a_fixed_address: unwinds(program("rust-no-pie", &["-C", "relocation-model=static"], false)),
    std_as_a_library: unwinds(program("rust-dynamic", &["-C", "prefer-dynamic", "-C", "rpath"], false)),
    not_linked_by_lld: unwinds(program("rust-bfd", &["-C", "linker-features=-lld"], false)),
    glibc_static: unwinds(program("rust-static", &["-C", "target-feature=+crt-static"], false)),
    musl: signals(unwinds(program("rust-musl", MUSL, false))),
    musl_stripped: signals(marked(program("rust-musl-stripped", MUSL, true))),
    no_unwind_tables: aborts(program(
        "rust-no-tables",
        &["-C", "panic=abort", "-C", "force-unwind-tables=no"],
        false,
    )),
}
