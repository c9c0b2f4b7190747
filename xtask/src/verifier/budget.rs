//! The budget: what each program may cost the verifier, by kernel.

use std::{collections::BTreeMap, fmt};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Programs;

/// What one program may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowance {
    /// Instructions that the verifier goes through.
    pub instructions: u64,
    /// Bytes of stack, functions included.
    pub stack: u64,
}

/// By place where stacks are taken, then by program.
type Hooks = BTreeMap<String, BTreeMap<String, Allowance>>;

/// The committed budget.
///
/// What the verifier goes through is exact: the same object on the same kernel gives the same
/// count, on any machine. Another kernel's verifier prunes differently, by a factor more often
/// than by a percentage, so its counts say nothing about a change of ours. Hence each kernel has
/// figures of its own; on one that has none, a program must only stay well below what ends its load.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// By major and minor number of the kernel: `6.18`.
    kernel: BTreeMap<String, Hooks>,
}

/// How many percent more instructions than the budget says pass: stable releases of one kernel
/// differ a little, and not every small change is worth a look. The stack has none.
const HEADROOM_PERCENT: u64 = 10;

/// What part of the kernel's own limit passes on a kernel without figures.
const UNKNOWN_KERNEL_DIVISOR: u64 = 2;

const PREAMBLE: &str = "\
# What each program of the kernel side may cost the verifier: instructions it goes through, and bytes of
# stack, functions included. Measured on the kernel that the section is named after; by the place where stacks are taken.
# `cargo xtask verifier` allows 10 % more instructions and no more stack. On a kernel without a section a
# program may take half of what the kernel itself allows.
# Written by `cargo xtask verifier --bless` for the kernel that runs; other sections stay as they are.
";

impl Budget {
    /// Reads the file.
    pub fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).context("the budget is not what `cargo xtask verifier --bless` writes")
    }

    /// One sentence for each program that takes more than it may, or that the budget does not know,
    /// or knows and that is not there.
    pub fn judge(&self, programs: &Programs) -> Vec<String> {
        let series = series(&programs.kernel);
        let Some(hooks) = self.kernel.get(&series) else {
            println!(
                "the budget has no figures for Linux {series}: judged by half of the kernel's own limits"
            );
            return at_half(programs);
        };
        let mut over = Vec::new();
        for (hook, measured) in &programs.hooks {
            let none = BTreeMap::new();
            let allowed = hooks.get(hook).unwrap_or(&none);
            for (name, figures) in measured {
                match allowed.get(name) {
                    None => over.push(format!("{hook}: {name} is not in the budget")),
                    Some(allowance) => over.extend(
                        exceeds(figures.allowance(), *allowance)
                            .map(|what| format!("{hook}: {name} {what}")),
                    ),
                }
            }
            let gone = allowed.keys().filter(|name| !measured.contains_key(*name));
            over.extend(gone.map(|name| format!("{hook}: {name} of the budget is not loaded")));
        }
        over
    }

    /// The same with the figures of `programs` for its kernel. Places that this machine does not
    /// offer keep what they had.
    pub fn with(mut self, programs: &Programs) -> Self {
        let hooks = self.kernel.entry(series(&programs.kernel)).or_default();
        for (hook, measured) in &programs.hooks {
            let figures =
                measured.iter().map(|(name, figures)| (name.clone(), figures.allowance()));
            hooks.insert(hook.clone(), figures.collect());
        }
        self
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(PREAMBLE)?;
        for (kernel, hooks) in &self.kernel {
            for (hook, programs) in hooks {
                writeln!(out, "\n[kernel.\"{kernel}\".{hook}]")?;
                for (name, Allowance { instructions, stack }) in programs {
                    writeln!(out, "{name} = {{ instructions = {instructions}, stack = {stack} }}")?;
                }
            }
        }
        Ok(())
    }
}

fn exceeds(measured: Allowance, allowed: Allowance) -> Option<String> {
    let most = allowed.instructions + allowed.instructions * HEADROOM_PERCENT / 100;
    if measured.instructions > most {
        return Some(format!(
            "takes {} instructions; the budget is {}, and {HEADROOM_PERCENT} % more pass",
            measured.instructions, allowed.instructions
        ));
    }
    (measured.stack > allowed.stack).then(|| {
        format!("takes {} bytes of stack; the budget is {}", measured.stack, allowed.stack)
    })
}

/// The stack is not judged: it is the compiler's work, the same on every kernel, and one that is too
/// large is not loaded at all.
fn at_half(programs: &Programs) -> Vec<String> {
    let most = programs.instructions_max / UNKNOWN_KERNEL_DIVISOR;
    let mut over = Vec::new();
    for (hook, measured) in &programs.hooks {
        for (name, figures) in measured {
            if figures.instructions > most {
                over.push(format!(
                    "{hook}: {name} takes {} instructions, more than half of what the kernel allows",
                    figures.instructions
                ));
            }
        }
    }
    over
}

/// `6.18` of `6.18.44-cloud-amd64`.
fn series(release: &str) -> String {
    release.split('.').take(2).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test may panic")]

    use super::*;

    fn programs(kernel: &str, name: &str, instructions: u64, stack: u64) -> Programs {
        serde_json::from_str(&format!(
            r#"{{"kernel": "{kernel}", "instructions_max": 1000000, "stack_max": 512, "hooks":
                {{"switch-out": {{"{name}": {{"instructions": {instructions}, "stack": [{stack}],
                "verification_ns": 1, "load_ns": 2, "translated_bytes": 3, "jitted_bytes": 4}}}}}}}}"#
        ))
        .unwrap()
    }

    #[test]
    fn only_what_exceeds_the_budget_of_its_kernel_is_named() {
        let budget = Budget::default().with(&programs("6.18.1", "walk", 1000, 96));
        let check = |kernel: &str, name: &str, instructions: u64, stack: u64, sentences: usize| {
            let judged = budget.judge(&programs(kernel, name, instructions, stack));
            assert_eq!(judged.len(), sentences, "{judged:?}");
        };
        check("6.18.44-amd64", "walk", 1000, 96, 0);
        check("6.18.44-amd64", "walk", 1100, 96, 0);
        check("6.18.44-amd64", "walk", 1101, 96, 1);
        check("6.18.44-amd64", "walk", 1000, 104, 1);
        check("6.18.44-amd64", "run", 1, 0, 2);
        check("6.1.0", "walk", 500_000, 512, 0);
        check("6.1.0", "walk", 500_001, 0, 1);
    }

    #[test]
    fn what_is_written_is_read_back_and_other_kernels_stay() {
        let budget = Budget::default()
            .with(&programs("6.18.1", "walk", 1000, 96))
            .with(&programs("6.1.0-42", "walk", 5000, 96));
        assert_eq!(Budget::parse(&budget.to_string()).unwrap(), budget);
        assert_eq!(budget.kernel.len(), 2);
    }
}
