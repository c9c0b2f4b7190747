//! The room against real processes: ourselves, children of ours that speak first, kernel threads.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
};

use super::*;
use crate::units::{Avma, Tid};

fn failure(result: anyhow::Result<Process>) -> Failure {
    result.unwrap_err().downcast().unwrap()
}

/// A program that runs until its input ends.
struct Waiting(Child);

impl Waiting {
    /// Starts a command that prints a line once it is there.
    fn start(command: &mut Command) -> (Self, String) {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        (Self(child), said.trim().to_owned())
    }

    fn pid(&self) -> Pid {
        Pid(self.0.id())
    }

    fn stop(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

/// A shell under another name that says its id and waits.
fn shell_called(dir: &Path, name: &str) -> Waiting {
    let path = dir.join(name);
    // Copied by another process: a file that we have open for writing is busy in any child that
    // another test forks meanwhile.
    assert!(
        Command::new("cp").args(["/bin/sh".as_ref(), path.as_os_str()]).status().unwrap().success()
    );
    let (waiting, said) = Waiting::start(Command::new(&path).args(["-c", "echo $$; read line"]));
    assert_eq!(said, waiting.0.id().to_string());
    waiting
}

#[test]
fn we_see_ourselves() {
    let own = by_pid(std::process::id()).unwrap();
    assert_eq!(own.exe, std::env::current_exe().unwrap());
    assert_eq!(own.command, std::env::args().collect::<Vec<_>>());
    assert!(own.lives());
    assert!(!Process { start_ticks: own.start_ticks + 1, ..own.clone() }.lives());
    let text = describe(own.pid).unwrap();
    assert!(text.contains(&format!("executable {}", own.exe.display())), "{text}");
}

#[test]
fn threads_come_with_names_and_counters() {
    let (told, hears) = mpsc::channel();
    let (stop, stopped) = mpsc::channel::<()>();
    let thread = std::thread::Builder::new().name("a ) b".to_owned()).spawn(move || {
        told.send(Tid(nix::unistd::gettid().as_raw().cast_unsigned())).unwrap();
        stopped.recv().unwrap_err();
    });
    let tid = hears.recv().unwrap();
    let own = Pid(std::process::id());
    let all = threads(own).unwrap();
    assert!(all.contains(&(tid, "a ) b".to_owned())), "{all:?}");
    assert!(all.is_sorted());
    // Another thread can be asked about by its id, which is no process's.
    let Failure::NoTarget(message) = failure(by_pid(tid.0)) else { panic!("not NoTarget") };
    assert!(message.contains(&format!("try -p {own}")), "{message}");

    let before = switches(own, tid).unwrap();
    drop(stop);
    thread.unwrap().join().unwrap();
    assert!(switches(own, tid).is_err(), "the thread has ended, after {before} switches");
}

#[test]
fn the_kernel_accounts_for_a_thread_that_runs() {
    let own = Pid(std::process::id());
    let tid = Tid(nix::unistd::gettid().as_raw().cast_unsigned());
    let before = sched_stat(own, tid).unwrap();
    // Until the kernel has counted: it brings the running time up to date at every tick.
    while sched_stat(own, tid).unwrap().running == before.running {}
}

#[test]
fn mapped_files_are_opened_and_the_vdso_is_read() {
    let own = Pid(std::process::id());
    let all = mappings(own).unwrap();
    let exe = std::env::current_exe().unwrap();
    let code = all.iter().find(|mapping| mapping.path == exe).unwrap();
    let here = Avma(we_see_ourselves as fn() as usize as u64);
    assert!((code.start..code.end).contains(&here), "{here} is not in {code:?}");

    let mut magic = [0; 4];
    open_mapped(own, code).unwrap().read_exact(&mut magic).unwrap();
    assert_eq!(&magic, b"\x7fELF");

    let vdso = all.iter().find(|mapping| mapping.kind == MappingKind::Vdso).unwrap();
    let bytes = read_memory(own, vdso.start, vdso.end.0 - vdso.start.0).unwrap();
    assert_eq!(&bytes[..4], b"\x7fELF");
    assert!(open_mapped(own, vdso).is_err());
    assert!(read_memory(own, Avma(0), 4096).is_err());
    assert!(read_memory(own, vdso.start, u64::MAX).is_err());
}

#[test]
fn a_deleted_executable_is_opened_even_with_another_at_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let shell = shell_called(dir.path(), "doomed");
    let path = dir.path().join("doomed");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "an impostor").unwrap();

    let process = by_pid(shell.pid().0).unwrap();
    assert_eq!(process.exe, path);
    let code = mappings(process.pid).unwrap();
    let code = code.iter().find(|mapping| mapping.path == path).unwrap();
    assert!(code.deleted);
    let mut bytes = Vec::new();
    open_mapped(process.pid, code).unwrap().read_to_end(&mut bytes).unwrap();
    assert!(bytes == fs::read("/bin/sh").unwrap(), "{} bytes of another file", bytes.len());

    // Where the kernel does not say what is mapped, the impostor is not taken for it.
    let elsewhere = ExecMapping { start: Avma(1), end: Avma(2), inode: 1, ..code.clone() };
    assert_eq!(open_mapped(process.pid, &elsewhere).unwrap_err().kind(), io::ErrorKind::NotFound);
    // The executable itself can be told by its inode.
    let exe = ExecMapping { start: Avma(1), end: Avma(2), ..code.clone() };
    open_mapped(process.pid, &exe).unwrap();
    shell.stop();
}

#[test]
fn a_name_means_the_one_process_that_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let one = shell_called(dir.path(), "stallscope-long-name-one");
    let found = by_name("stallscope-long-name-one").unwrap();
    assert_eq!((found.pid, found.name.as_str()), (one.pid(), "stallscope-long"));

    let Failure::NoTarget(message) = failure(by_name("stallscope-long-name-noe")) else {
        panic!("not NoTarget")
    };
    assert!(message.contains("stallscope-long-name-one"), "{message}");

    let two = shell_called(dir.path(), "stallscope-long-name-two");
    let Failure::Usage(message) = failure(by_name("stallscope-long")) else { panic!("not Usage") };
    for process in [&one, &two] {
        let line = format!("{}  {}", process.pid(), dir.path().display());
        assert!(message.contains(&line), "{message}");
    }
    one.stop();
    two.stop();
}

#[test]
fn descendants_are_found_and_the_dead_are_not() {
    let (shell, said) =
        Waiting::start(Command::new("/bin/sh").args(["-c", "(echo there; read line) <&0; exit"]));
    assert_eq!(said, "there");
    let pid = shell.pid();
    assert!(children(Pid(std::process::id())).contains(&pid));
    assert!(children(pid).iter().all(|child| by_pid(child.0).is_ok()));
    let process = by_pid(pid.0).unwrap();
    shell.stop();
    assert!(!process.lives());
    assert!(!children(Pid(std::process::id())).contains(&pid));
    assert!(matches!(failure(by_pid(pid.0)), Failure::NoTarget(_)));
    for error in [threads(pid).unwrap_err(), mappings(pid).unwrap_err()] {
        assert_eq!(Failure::exit_code(&error), 3, "{error:#}");
    }
}

#[test]
fn a_process_that_ended_and_was_not_waited_for_is_no_target() {
    let (mut shell, _) = Waiting::start(Command::new("/bin/sh").args(["-c", "echo; read line"]));
    let pid = shell.pid();
    drop(shell.0.stdin.take());
    // Its output closes when it ends, a little before it is a zombie; reading its state to the end.
    while !process::stat(pid).unwrap().ended {
        std::thread::yield_now();
    }
    let Failure::NoTarget(message) = failure(by_pid(pid.0)) else { panic!("not NoTarget") };
    assert!(message.contains("has ended"), "{message}");
    assert_eq!(Failure::exit_code(&mappings(pid).unwrap_err()), 3);
    shell.stop();
}

#[test]
fn numbers_that_name_nothing_are_no_target() {
    for pid in [0, u32::MAX] {
        assert!(matches!(failure(by_pid(pid)), Failure::NoTarget(_)));
    }
    assert!(matches!(failure(by_name("")), Failure::NoTarget(_)));
}

#[test]
fn a_kernel_thread_is_no_target() {
    // In a PID namespace of our own there may be none to try.
    if process::stat(Pid(2)).is_ok_and(|stat| stat.kernel_thread) {
        let Failure::NoTarget(message) = failure(by_pid(2)) else { panic!("not NoTarget") };
        assert!(message.contains("kernel thread"), "{message}");
    } else {
        assert!(!is_initial_pid_namespace());
    }
}

#[test]
fn the_clocks_are_those_of_this_machine() {
    let (first, second) = (clocks().unwrap(), clocks().unwrap());
    assert!(first.monotonic < second.monotonic);
    let unix = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    assert!(u128::from(second.unix_ns.cast_unsigned()) <= unix);
    let host = host().unwrap();
    assert_eq!(host.arch, std::env::consts::ARCH);
    assert!(host.cpus as usize >= std::thread::available_parallelism().unwrap().get());
    assert_eq!(host.boot_id.len(), 36);
}
