//! A program that knows the truth about its own waiting.
//!
//! Each subcommand prints `ready PID`, waits for the line `go` on stdin, works until the line
//! `stop`, prints one line of JSON, and lives on until stdin ends. An end of stdin at any time is
//! `stop` too.

mod blocks;
mod compare;
mod control;
mod locks;
mod many;
mod migrate;
mod objects;
mod polls;
mod pool;
mod pools;
mod processes;
mod queue;
mod runtimes;
mod service;
mod sites;
mod stage;
mod starve;
mod storm;
mod stuck;
mod truth;
mod whole;
mod workers;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "A program that knows the truth about its own waiting")]
struct Cli {
    #[command(subcommand)]
    workload: Workload,
}

#[derive(Subcommand)]
enum Workload {
    /// Threads that sleep, wait for a lock, read a pipe and read a socket, 1 to 9 ms a time
    Truth {
        /// Begin at once, work this many seconds and end, without a word on stdin
        #[arg(long = "for", value_name = "SECS")]
        seconds: Option<u64>,
    },
    /// Pairs of threads that wake each other as fast as they can; prints their switch counters
    Storm {
        /// Stop by itself after this many rounds of two switches
        #[arg(long)]
        rounds: Option<u64>,
        /// Slow down to this many switches a second
        #[arg(long)]
        rate: Option<u32>,
        /// Keep both of a pair on one CPU, where every wake-up is a switch
        #[arg(long)]
        same_cpu: bool,
        /// How many pairs, each on a CPU in turn with --same-cpu
        #[arg(long, default_value_t = 1)]
        pairs: usize,
    },
    /// A thread that changes CPU in every sleep, beside a pinned one with the same sleeps
    Migrate,
    /// Threads that share one CPU and want it most of the time
    Queue,
    /// Hundreds of threads a second, each of which sleeps once
    Churn,
    /// Parked threads, and one that sleeps
    Crowd {
        /// How many are parked
        #[arg(default_value_t = 5000)]
        threads: usize,
    },
    /// Two threads that wait for each other's lock, and one in a long sleep, from the beginning
    Stuck,
    /// Eight threads that queue for a lock behind one that keeps it for 20 ms at a time
    Convoy {
        /// It keeps it computing, not asleep
        #[arg(long)]
        computes: bool,
    },
    /// 64 threads that take two locks in the same order
    Contend,
    /// A Tokio pool all of whose workers wait for a lock that is never given back
    Hang,
    /// Becomes `truth` by exec on `go`; `truth` then is ready and waits for a `go` of its own
    Exec,
    /// Two child processes of the kind `truth`, whose sums are added up
    Fork,
    /// A Tokio pool whose workers are blocked, allowed to wait, and idle
    Tokio,
    /// Two Tokio pools with names of their own and a runtime of one thread, blocked, allowed to wait, and idle
    Runtimes,
    /// Two Tokio runtimes whose workers time every blocking call
    Pools,
    /// Tokio tasks that hold a worker for long at a time
    Polls,
    /// A Tokio pool that runs dry at known times
    Starve,
    /// A Tokio pool that is busy and well
    Busy,
    /// A Tokio service with 25,000 short waits a second, all at one depth, and idle in between
    Service {
        /// Calls between the handler and its wait
        #[arg(long, default_value_t = 8)]
        depth: u32,
    },
    /// Threads that block for 1 ms, again and again
    Blocks {
        /// Blocks a second, all threads together
        #[arg(long, default_value_t = 10_000)]
        rate: u32,
    },
    /// Threads that each wait on one known thing: pipes, sockets, a file, a lock, a clock, a child
    Objects,
    /// Writes a byte every 5 ms to a named pipe or Unix socket, or to stdout
    Write {
        /// Where to
        path: Option<PathBuf>,
    },
    /// Compares a report with what a workload printed
    Compare {
        /// How far a site may be off, in percent
        #[arg(long, default_value_t = 2.0)]
        within: f64,
        /// A report in JSON
        report: PathBuf,
        /// What the workload printed
        truth: PathBuf,
    },
    /// Tells whether the stacks of a report are whole
    Whole {
        /// A report in JSON
        report: PathBuf,
        /// Functions that have to be in it
        functions: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().workload) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(workload: Workload) -> Result<()> {
    match workload {
        Workload::Truth { seconds } => truth::run(seconds),
        Workload::Storm { rounds, rate, same_cpu, pairs } => {
            storm::run(storm::Limits { rounds, rate, same_cpu, pairs })
        }
        Workload::Migrate => migrate::run(),
        Workload::Queue => queue::run(),
        Workload::Churn => many::churn(),
        Workload::Crowd { threads } => many::crowd(threads),
        Workload::Stuck => stuck::run(),
        Workload::Convoy { computes } => locks::convoy(computes),
        Workload::Contend => locks::contend(),
        Workload::Hang => locks::hang(),
        Workload::Exec => processes::exec(),
        Workload::Fork => processes::fork(),
        Workload::Tokio => pool::run(),
        Workload::Runtimes => runtimes::run(),
        Workload::Pools => pools::run(),
        Workload::Polls => polls::run(),
        Workload::Starve => starve::run(),
        Workload::Busy => starve::busy(),
        Workload::Service { depth } => service::run(depth),
        Workload::Blocks { rate } => blocks::run(rate),
        Workload::Objects => objects::run(),
        Workload::Write { path } => objects::write(path.as_deref()),
        Workload::Whole { report, functions } => whole::run(&report, &functions),
        Workload::Compare { within, report, truth } => compare::run(&report, &truth, within),
    }
}
