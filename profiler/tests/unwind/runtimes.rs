//! Interpreters and just-in-time compilers.

use crate::{
    cell::{Cell, Ends, Start},
    cells,
};

fn script(interpreter: &'static str, script: &'static str, chains: &[&str]) -> Cell {
    Cell {
        programs: vec![],
        start: Start::Interpreter(interpreter),
        args: vec![script],
        chains: chains.iter().map(|&chain| chain.to_owned()).collect(),
        ends: Ends::Complete,
    }
}

cells! {
    python: script("/usr/bin/python3", "deep.py", &["~_start .. Py_BytesMain ..60", "..60"]),
    node: script("node", "workers.js", &["_start ..4", "..25", "?.."]),
}
