//! The `stallscope` program.

use std::process::ExitCode;

use clap::Parser;
use stallscope::{
    cli::{self, Cli},
    failure::Failure,
    terminal,
};

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            terminal::say(&format!("error: {error:#}"));
            ExitCode::from(Failure::exit_code(&error))
        }
    }
}
