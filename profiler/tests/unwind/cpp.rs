//! C++ programs: asleep where exceptions pass.

use crate::{
    cell::{Cell, Ends, Start},
    cells,
    program::{Compiler, Program},
};

const CHAINS: &[&str] = &[
    "_start .. main cell_until_closed ..",
    ".. cell_thread cell_catch cell_in_handler cell_nap ..",
    ".. cell_thread cell_catcher cell_unwound .. cell_nap ..",
    ".. cell_thread cell_end_of_handler .. cell_nap ..",
    ".. cell_thread cell_try cell_guarded cell_in_handler cell_nap ..",
    ".. cell_thread cell_try cell_guarded .. cell_nap ..",
    // Threads that throw at the same time wait for each other.
    "?.. cell_thread cell_catch cell_throw ..",
    "?.. cell_thread cell_catcher cell_unwound ..",
    "?.. cell_thread cell_catcher cell_unwound cell_throw ..",
    "?.. cell_thread cell_end_of_handler cell_throw_error ..",
];

fn cpp(name: &'static str, compiler: Compiler, options: &[&'static str]) -> Cell {
    let options = [options, &["-fomit-frame-pointer", "-D_GNU_SOURCE"]].concat();
    let sources = &["exceptions.cpp", "cell.c"];
    Cell {
        programs: vec![Program { name, compiler, options, sources, stripped: false }],
        start: Start::Plain,
        args: vec![],
        chains: CHAINS.iter().map(|&chain| chain.to_owned()).collect(),
        ends: Ends::Complete,
    }
}

cells! {
    gcc_not_optimised: cpp("g++-O0", Compiler::Gxx, &["-O0"]),
    gcc_optimised: cpp("g++-O2", Compiler::Gxx, &["-O2"]),
    gcc_for_size_static: cpp("g++-Os-static", Compiler::Gxx, &["-Os", "-static"]),
    gcc_optimised_more: cpp("g++-O3", Compiler::Gxx, &["-O3"]),
    clang_linked_by_lld: cpp("clang++-lld", Compiler::Clangxx, &["-O2", "-fuse-ld=lld"]),
    clang_optimised: cpp("clang++-O2", Compiler::Clangxx, &["-O2"]),
}
