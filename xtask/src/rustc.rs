//! Stands in for rustc so that the kernel side's object does not depend on where the tree lies.
//!
//! The kernel side is a workspace of its own and `profiler-common` lies outside of it, so cargo
//! hashes the absolute path of `profiler-common` into `-C metadata`. rustc mixes that into the
//! mangled names, which are in the object's symbols and BTF. `--remap-path-prefix` does not reach
//! it. Replacing the value by the crate's name does; names of our crates are unique.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

/// Holds the root of the workspace whose crates get a metadata value of their own.
const OF: &str = "XTASK_STANDS_IN_FOR_RUSTC_OF";

/// Lets this program compile the crates under `root` for `cargo`.
pub fn stand_in_for<'a>(cargo: &'a mut Command, root: &Path) -> Result<&'a mut Command> {
    let xtask = env::current_exe().context("cannot tell the path of xtask")?;
    Ok(cargo.env("RUSTC_WRAPPER", xtask).env(OF, root))
}

/// Becomes rustc if cargo called this program in its place. Does not return in that case, unless
/// rustc cannot be started.
pub fn stand_in() -> Option<ExitCode> {
    let root = env::var_os(OF)?;
    let mut args = env::args_os().skip(1);
    let rustc = args.next()?;
    let ours =
        env::var_os("CARGO_MANIFEST_DIR").is_some_and(|dir| Path::new(&dir).starts_with(root));
    let args: Vec<OsString> = args.collect();
    let args = if ours { with_metadata_by_name(args) } else { args };
    let error = Command::new(&rustc).args(args).exec();
    eprintln!("error: cannot start {}: {error}", rustc.display());
    Some(ExitCode::FAILURE)
}

fn with_metadata_by_name(args: Vec<OsString>) -> Vec<OsString> {
    let name = args.iter().skip_while(|arg| *arg != OsStr::new("--crate-name")).nth(1).cloned();
    let Some(name) = name else { return args };
    let mut metadata = OsString::from("metadata=");
    metadata.push(name);
    args.into_iter().map(|arg| if is_metadata(&arg) { metadata.clone() } else { arg }).collect()
}

fn is_metadata(arg: &OsStr) -> bool {
    arg.as_encoded_bytes().starts_with(b"metadata=")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &str, expected: &str) {
        let args = input.split(' ').map(OsString::from).collect();
        let expected: Vec<OsString> = expected.split(' ').map(OsString::from).collect();
        assert_eq!(with_metadata_by_name(args), expected);
    }

    #[test]
    fn metadata_becomes_the_name_of_the_crate() {
        check(
            "--crate-name common lib.rs -C metadata=6e70 -C extra-filename=-734b",
            "--crate-name common lib.rs -C metadata=common -C extra-filename=-734b",
        );
        // What cargo asks before it knows any crate.
        check("-vV", "-vV");
        check("- --crate-name ___ --print=cfg", "- --crate-name ___ --print=cfg");
    }
}
