//! Processes whose code changes while they are recorded, or lies where it is not expected.

use crate::{
    cell::{Cell, Ends, Start},
    cells,
    program::{Compiler, Program},
};

/// What `shapes frames` does.
const FRAMES: &[&str] = &[
    "_start .. main cell_until_closed ..",
    ".. cell_thread cell_alloca cell_nap ..",
    ".. cell_thread cell_vla cell_nap ..",
    ".. cell_thread cell_drap cell_aligned cell_nap ..",
    ".. cell_thread cell_realigned cell_nap ..",
    ".. cell_thread cell_qsort .. cell_compare cell_nap ..",
    ".. cell_thread cell_saves cell_saving cell_nap ..",
];

fn c(name: &'static str, sources: &'static [&'static str], options: &[&'static str]) -> Program {
    let options = [&["-O2", "-fomit-frame-pointer", "-D_GNU_SOURCE"], options].concat();
    Program { name, compiler: Compiler::Gcc, options, sources, stripped: false }
}

fn shapes() -> Program {
    const SOURCES: &[&str] =
        &["shapes.c", "cell.c", "frames.c", "waits.c", "signals.c", "stacks.c"];
    c("shapes", SOURCES, &[])
}

fn cell(start: Start, programs: Vec<Program>, args: &[&'static str], chains: &[&str]) -> Cell {
    let chains = chains.iter().map(|&chain| chain.to_owned()).collect();
    Cell { programs, start, args: args.to_vec(), chains, ends: Ends::Complete }
}

/// Stacks from between `dlopen` and the recorder's hearing of it are refused on purpose.
fn outdated(cell: Cell) -> Cell {
    Cell { ends: Ends::CompleteOrOutdated, ..cell }
}

/// Two libraries of the same size whose functions lie at the same addresses, with other frames.
fn plugins() -> Vec<Program> {
    vec![
        c("loader", &["loader.c", "cell.c"], &[]),
        c(
            "plugin-a.so",
            &["plugin.c"],
            &["-shared", "-fPIC", "-DNAME=cell_plugin_a", "-DINNER=cell_inner_a", "-DSIZE=40"],
        ),
        c(
            "plugin-b.so",
            &["plugin.c"],
            &["-shared", "-fPIC", "-DNAME=cell_plugin_b", "-DINNER=cell_inner_b", "-DSIZE=4000"],
        ),
    ]
}

cells! {
    a_plug_in_is_loaded_and_replaced: outdated(cell(Start::Plain, plugins(), &[], &[
        "_start .. main cell_until_closed ..",
        "?_start .. main ..",
        ".. cell_thread cell_swap cell_plugin_a cell_inner_a ..",
        ".. cell_thread cell_swap cell_plugin_b cell_inner_b ..",
        "?.. cell_thread cell_swap ..",
    ])),
    another_program_under_the_same_number: cell(
        Start::Plain,
        vec![c("become", &["become.c"], &[]), shapes()],
        &["frames"],
        &[FRAMES, &["?_start .. main ..", "?_start .."]].concat(),
    ),
    threads_are_born_and_die: cell(
        Start::Plain,
        vec![c("brief", &["brief.c", "cell.c"], &[])],
        &[],
        &[
            "_start .. main cell_until_closed ..",
            ".. cell_brief cell_nap ..",
            ".. cell_thread cell_spawn ..",
            "?..",
        ],
    ),
    a_deleted_executable: cell(Start::Deleted, vec![shapes()], &["frames"], FRAMES),
    a_mount_namespace_of_its_own: cell(Start::Mounted, vec![shapes()], &["frames"], FRAMES),
    more_than_50_mb: cell(
        Start::Plain,
        vec![c("large", &["large.s", "large.c", "large.s", "cell.c", "large.s", "largest.c"], &[])],
        &[],
        &[
            "_start .. main cell_until_closed ..",
            ".. cell_thread cell_first cell_last cell_nap ..",
        ],
    ),
}
