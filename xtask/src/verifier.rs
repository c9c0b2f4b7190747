//! What the kernel's verifier makes of each program, held against a committed budget.

mod budget;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use self::budget::{Allowance, Budget};
use crate::run;

/// What `stallscope inspect programs` prints.
#[derive(Deserialize)]
struct Programs {
    kernel: String,
    instructions_max: u64,
    stack_max: u64,
    hooks: BTreeMap<String, BTreeMap<String, Figures>>,
}

#[derive(Deserialize)]
struct Figures {
    instructions: u64,
    stack: Vec<u64>,
    verification_ns: u64,
    load_ns: u64,
    translated_bytes: u32,
    jitted_bytes: u32,
}

/// Loads every program on this kernel, prints what the verifier said, and fails if it is more than
/// the budget says.
pub fn check() -> Result<()> {
    let programs = programs()?;
    print_table(&programs);
    let over = Budget::parse(&read(&path())?)?.judge(&programs);
    if over.is_empty() {
        return Ok(());
    }
    bail!(
        "{}\nmake the program smaller; or, if it is meant to be so, rewrite the budget with \
         `cargo xtask verifier --bless` and say in the commit what the difference buys",
        over.join("\n")
    )
}

/// Rewrites what the budget says for this kernel.
pub fn bless() -> Result<()> {
    let programs = programs()?;
    print_table(&programs);
    let path = path();
    let old = if path.exists() { Budget::parse(&read(&path)?)? } else { Budget::default() };
    fs::write(&path, old.with(&programs).to_string())
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}

fn path() -> PathBuf {
    run::root().join("profiler-ebpf/verifier-budget.toml")
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| {
        format!("cannot read {}: write it with `cargo xtask verifier --bless`", path.display())
    })
}

/// Built as this user, run as root.
fn programs() -> Result<Programs> {
    run::run(&mut run::cargo(&["build", "--locked", "-p", "stallscope"]))?;
    let stallscope = run::target_dir().join("debug/stallscope");
    let mut inspect: Command = run::as_root(stallscope);
    let json = run::output(inspect.args(["inspect", "programs"]))?;
    serde_json::from_str(&json).context("`stallscope inspect programs` printed something else")
}

impl Figures {
    /// Bytes of the program's stack and of all its functions': no chain of calls can have more.
    fn stack_bytes(&self) -> u64 {
        self.stack.iter().sum()
    }

    fn allowance(&self) -> Allowance {
        Allowance { instructions: self.instructions, stack: self.stack_bytes() }
    }
}

fn print_table(programs: &Programs) {
    println!(
        "kernel {}: at most {} instructions and {} bytes of stack a program",
        programs.kernel, programs.instructions_max, programs.stack_max
    );
    for (hook, programs) in &programs.hooks {
        println!("\nstacks taken at {hook}");
        println!(
            "  {:<26} {:>12} {:>16} {:>10} {:>10} {:>10} {:>8}",
            "program", "instructions", "stack", "verified", "loaded", "bytecode", "machine"
        );
        for (name, figures) in programs {
            let stack: Vec<String> = figures.stack.iter().map(u64::to_string).collect();
            println!(
                "  {name:<26} {:>12} {:>16} {:>7.1} ms {:>7.1} ms {:>10} {:>8}",
                figures.instructions,
                stack.join("+"),
                figures.verification_ns as f64 / 1e6,
                figures.load_ns as f64 / 1e6,
                figures.translated_bytes,
                figures.jitted_bytes
            );
        }
    }
    println!();
}
