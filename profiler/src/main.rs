//! The `stallscope` program.

use std::process::ExitCode;

use clap::Parser;
use stallscope::{
    cli::{self, Cli},
    failure::Failure,
};

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(Failure::exit_code(&error))
        }
    }
}
