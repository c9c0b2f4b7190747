//! Every chore of the project.

mod bench;
mod bless;
mod boot;
mod demo;
mod ebpf;
mod kernel_package;
mod object_diff;
mod run;
mod rustc;
mod services;
mod setup;
mod test;
mod toolchain;
mod verifier;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Every chore of the project", bin_name = "cargo xtask")]
struct Xtask {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Install what is missing to rebuild the kernel side and to run the tests
    Setup,
    /// Build the kernel side from source into profiler-ebpf/prebuilt/
    Ebpf {
        /// Change nothing; fail if the committed object is not what the source gives
        #[arg(long)]
        check: bool,
    },
    /// Run everything that has to pass: formatting, lints, docs, unit, golden and live tests
    Test,
    /// Load every program on this kernel and hold what the verifier says against the budget
    Verifier {
        /// Rewrite the budget with what this kernel says
        #[arg(long)]
        bless: bool,
    },
    /// Boot Debian's own kernels in qemu and try the tool there
    Vm {
        /// 5.10, 6.1, 6.12 or 7.2; all of them if none is named
        #[arg(value_parser = clap::builder::PossibleValuesParser::new(kernel_package::names()))]
        kernels: Vec<String>,
    },
    /// Measure, in a release build
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Record Tokio services from crates.io and count the stacks that are complete; builds them first
    Services,
    /// Build the tool and let it record and explain a starving service of its own
    Demo,
    /// Rewrite the golden files with what the code writes now
    Bless,
}

fn main() -> ExitCode {
    // Cargo calls this very program as the compiler when it builds the kernel side.
    if let Some(status) = rustc::stand_in() {
        return status;
    }
    let done = match Xtask::parse().chore {
        Chore::Setup => setup::run(),
        Chore::Ebpf { check: false } => ebpf::build(),
        Chore::Ebpf { check: true } => ebpf::check(),
        Chore::Test => test::run(),
        Chore::Verifier { bless: false } => verifier::check(),
        Chore::Verifier { bless: true } => verifier::bless(),
        Chore::Vm { kernels } => vm::run(&kernels),
        Chore::Bench(bench) => bench::run(&bench),
        Chore::Services => services::run(),
        Chore::Demo => demo::run(),
        Chore::Bless => bless::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
