//! The ways a command can end that scripts must be able to tell apart.

use thiserror::Error;

/// A failure with an exit code of its own; anything else exits with 1.
///
/// Each message says what happened, the likely cause, and the command to run next.
#[derive(Debug, Error)]
pub enum Failure {
    /// Wrong usage: an ambiguous name, an output path that cannot be written. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// No such target, not a user process, or gone before anything was recorded. Exit code 3.
    #[error("{0}")]
    NoTarget(String),
    /// Not permitted, or the kernel cannot. Exit code 4.
    #[error("{0}")]
    NotPermitted(String),
    /// Stopped at once by a second Ctrl-C. Exit code 130.
    #[error("stopped")]
    Interrupted,
}

/// Every exit code and when it is used, as the help text lists them.
pub const EXIT_CODES: &[(u8, &str)] = &[
    (0, "done"),
    (1, "failed: a corrupt file, a full disk"),
    (2, "wrong usage: an ambiguous name, an output path that exists or cannot be written"),
    (3, "no such target, not a user process, or gone before anything was recorded"),
    (4, "not permitted, or the kernel cannot: see `stallscope doctor`"),
    (130, "stopped by a second Ctrl-C"),
];

impl Failure {
    /// Its exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::NoTarget(_) => 3,
            Self::NotPermitted(_) => 4,
            Self::Interrupted => 130,
        }
    }

    /// The exit code of the failure that an error chain holds, 1 if it holds none.
    pub fn exit_code(error: &anyhow::Error) -> u8 {
        error.downcast_ref::<Self>().map_or(1, Self::code)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn the_exit_code_survives_context_and_is_in_the_help() {
        let usage = || Failure::Usage(String::new());
        for (error, expected) in [
            (anyhow!(usage()), 2),
            (anyhow!(usage()).context("while recording"), 2),
            (anyhow!(Failure::NoTarget(String::new())), 3),
            (anyhow!(Failure::NotPermitted(String::new())), 4),
            (anyhow!(Failure::Interrupted), 130),
            (anyhow!("corrupt"), 1),
        ] {
            assert_eq!(Failure::exit_code(&error), expected, "{error:#}");
            assert!(EXIT_CODES.iter().any(|(code, _)| *code == expected));
        }
    }
}
