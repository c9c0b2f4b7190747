//! One boot: an initramfs with the programs and a script, qemu, and what the script reported.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::run;

/// The emulated processor is some twenty times slower than a real one.
const BOOT_LIMIT: Duration = Duration::from_secs(600);

const INIT: &str = include_str!("init.sh");
const BUSYBOX: &str = "/bin/busybox";

/// What the script's last line begins with; the number of checks that it made follows.
const END: &str = "CHECKS END ";

/// What one line of the script says.
#[derive(Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// Why it failed.
    pub failure: Option<String>,
}

/// Packs busybox, the script and `programs` (into the root) and returns the archive.
pub fn initramfs(programs: &[PathBuf]) -> Result<PathBuf> {
    let folder = run::target_dir().join("vm/initramfs");
    for part in ["bin", "proc", "sys", "dev", "tmp"] {
        let part = folder.join(part);
        fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
    }
    let init = folder.join("init");
    fs::write(&init, INIT).with_context(|| format!("cannot write {}", init.display()))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", init.display()))?;
    let mut files = vec![(PathBuf::from(BUSYBOX), folder.join("bin/busybox"))];
    for program in programs {
        let name = program.file_name().context("a program has a name")?;
        files.push((program.clone(), folder.join(name)));
    }
    for (from, to) in files {
        fs::copy(&from, &to)
            .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    }
    let archive = run::target_dir().join("vm/initramfs.cpio");
    let pack = format!("find . | cpio --quiet -o -H newc -R 0:0 > '{}'", archive.display());
    run::run(Command::new("sh").args(["-c", &pack]).current_dir(&folder))?;
    Ok(archive)
}

/// Boots `image` and returns what came over the serial console. The console is shown as it comes.
pub fn run(image: &Path, initramfs: &Path) -> Result<String> {
    let mut qemu = Command::new("qemu-system-x86_64");
    // kvm is not asked for: nested, it may hang although /dev/kvm is there. Both processors are
    // emulated by one thread: with one each, a processor can still run an instruction that the other
    // one has just patched, and the kernel, which patches itself when a tracepoint is attached,
    // stops ("Oops: int3", seen once in four boots of 7.2).
    qemu.args([
        "-accel",
        "tcg,thread=single",
        "-cpu",
        "max",
        "-m",
        "1024",
        "-smp",
        "2",
        "-nographic",
        "-no-reboot",
    ])
    .args(["-append", "console=ttyS0 quiet panic=-1"])
    .arg("-kernel")
    .arg(image)
    .arg("-initrd")
    .arg(initramfs)
    .stdin(Stdio::null())
    .stdout(Stdio::piped());
    let mut qemu = qemu.spawn().context("cannot start qemu-system-x86_64")?;
    let stdout = qemu.stdout.take().expect("qemu's stdout is a pipe");
    let (sender, lines) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + BOOT_LIMIT;
    let mut console = String::new();
    let in_time = loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                println!("  | {line}");
                std::io::stdout().flush().context("cannot write to the terminal")?;
                console += &line;
                console.push('\n');
            }
            Err(RecvTimeoutError::Disconnected) => break true,
            Err(RecvTimeoutError::Timeout) => break false,
        }
    };
    if !in_time {
        qemu.kill().context("cannot end qemu")?;
    }
    let status = qemu.wait().context("cannot wait for qemu")?;
    reader.join().expect("the reader of the console does not panic");
    if !in_time {
        bail!(
            "not done after {} s; last line: {:?}",
            BOOT_LIMIT.as_secs(),
            console.lines().next_back()
        );
    }
    if !status.success() {
        bail!("qemu ended with {status}");
    }
    Ok(console)
}

/// The checks that the script reported. Fails if it did not reach its end.
pub fn checks(console: &str) -> Result<Vec<Check>> {
    let Some(made) = console.lines().find_map(|line| line.strip_prefix(END)) else {
        bail!(
            "the kernel stopped before the checks were done; last line: {:?}",
            console.lines().next_back()
        );
    };
    let checks: Vec<Check> = console.lines().filter_map(check_in).collect();
    if checks.is_empty() || made != checks.len().to_string() {
        bail!("{made} checks were made, {} came over the console", checks.len());
    }
    Ok(checks)
}

fn check_in(line: &str) -> Option<Check> {
    let mut words = line.strip_prefix("CHECK ")?.splitn(3, ' ');
    let name = words.next()?.to_owned();
    let failure = match words.next()? {
        "PASS" => None,
        _ => Some(words.next().unwrap_or("no reason given").to_owned()),
    };
    Some(Check { name, failure })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test may panic")]

    use super::*;

    #[test]
    fn a_boot_counts_only_if_every_check_was_made() {
        #[track_caller]
        fn check(console: &str, expected: Option<&[(&str, Option<&str>)]>) {
            let found = checks(console).ok();
            let expected = expected.map(|rows| {
                rows.iter()
                    .map(|(name, failure)| Check {
                        name: (*name).to_owned(),
                        failure: failure.map(str::to_owned),
                    })
                    .collect::<Vec<_>>()
            });
            assert_eq!(found, expected);
        }
        check(
            "[0.1] hello\nCHECK doctor PASS\nCHECK demo FAIL exit code 4: no BTF\nCHECKS END 2\n",
            Some(&[("doctor", None), ("demo", Some("exit code 4: no BTF"))]),
        );
        check("CHECK doctor PASS\nKernel panic\n", None);
        check("CHECK doctor PASS\nCHECKS END 2\n", None);
        check("CHECKS END 0\n", None);
        assert!(checks("").unwrap_err().to_string().contains("stopped before"));
    }
}
