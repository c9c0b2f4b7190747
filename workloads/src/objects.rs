//! Threads that each wait on one thing, of which it is known what it is.

use std::{
    collections::BTreeMap,
    env, fs,
    fs::File,
    hint::black_box,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::{
        fs::FileTypeExt as _,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::{stat::Mode, time::TimeSpec},
    time::{ClockId, ClockNanosleepFlags, clock_nanosleep},
    unistd::mkfifo,
};
use serde::Serialize;

use crate::{
    control::{self, Control},
    stage::Stage,
};

/// How long one wait takes.
const PACE: Duration = Duration::from_millis(5);

/// How long a child process lives.
const CHILD_SECONDS: &str = "0.3";

/// What the waits of a function are on.
#[derive(Serialize)]
struct Truth {
    kind: &'static str,
    /// One of these.
    names: Vec<String>,
    /// Who has the other side.
    peers: Vec<u32>,
    /// What ends them.
    waker: Waker,
}

/// What ends waits.
#[derive(Serialize)]
struct Waker {
    kind: &'static str,
    /// The name of the thread; empty for none.
    name: &'static str,
    /// One of these is its process.
    pids: Vec<u32>,
}

/// What a thread of this name does.
type Work<'a> = (&'static str, Box<dyn FnOnce() + Send + 'a>);

/// Waits until told to stop, and prints by function what its waits were on.
pub fn run() -> Result<()> {
    let dir = env::temp_dir().join(format!("objects-{}", std::process::id()));
    fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let done = run_in(&dir);
    // It lies where temporary files do, and the result is what counts.
    let _ = fs::remove_dir_all(&dir);
    done
}

fn run_in(dir: &Path) -> Result<()> {
    let fifo = dir.join("fifo");
    mkfifo(&fifo, Mode::S_IRWXU).context("cannot make a named pipe")?;
    let fifo_writer = writer(Some(&fifo))?;
    let fifo_reader = File::open(&fifo).context("cannot open a named pipe")?;
    let mut pipe_writer = writer(None)?;
    let pipe_reader = pipe_writer.stdout.take().context("a child without a pipe")?;
    let path = dir.join("socket");
    let listener = UnixListener::bind(&path).context("cannot listen on a path")?;
    let unix_writer = writer(Some(&path))?;
    let (unix_reader, _) = listener.accept().context("cannot accept on a path")?;
    let (v4, v4_writer, v4_server) = tcp("127.0.0.1:0")?;
    let (v6, v6_writer, v6_server) = tcp("[::1]:0")?;
    let locked = dir.join("locked");
    let [own, other] = [File::create(&locked)?, File::open(&locked)?];
    let mutex = Mutex::new(());
    let children = Mutex::new(Vec::new());

    let works: Vec<Work<'_>> = vec![
        ("read-fifo", Box::new(|| drain(|| read_fifo(&fifo_reader)))),
        (
            "read-child",
            Box::new(move || {
                let mut pipe = pipe_reader;
                drain(|| read_child(&mut pipe));
            }),
        ),
        ("read-unix", Box::new(|| drain(|| read_unix(&unix_reader)))),
        ("read-v4", Box::new(|| drain(|| read_v4(&v4)))),
        ("read-v6", Box::new(|| drain(|| read_v6(&v6)))),
        ("write-v4", Box::new(|| write_paced(&v4_writer))),
        ("write-v6", Box::new(|| write_paced(&v6_writer))),
        ("lock-file", Box::new(move || lock_file_in_turn(own))),
        ("hold-file", Box::new(move || hold_file(other))),
        ("lock-mutex", Box::new(|| lock_mutex_in_turn(&mutex))),
        ("hold-mutex", Box::new(|| hold_mutex(&mutex))),
        ("sleep", Box::new(sleep_in_turn)),
        ("wait-for-child", Box::new(|| wait_in_turn(&children))),
    ];
    let stage = &Stage::new(works.len());
    let truth = |kind, names: Vec<String>, peers, waker| Truth { kind, names, peers, waker };
    let own = |name| Waker { kind: "thread", name, pids: vec![std::process::id()] };
    let other = |name, pids| Waker { kind: "thread", name, pids };
    let timer = Waker { kind: "timer", name: "", pids: vec![] };
    let shown = |path: &Path| vec![path.display().to_string()];
    thread::scope(|scope| {
        for (name, work) in works {
            let thread = thread::Builder::new().name(name.to_owned());
            thread
                .spawn_scoped(scope, move || stage.play(work))
                .context("cannot start a thread")?;
        }
        let told = Control::ready();
        stage.begin();
        let stopped = told.and_then(|mut control| control.wait_for_stop().map(|()| control));
        control::stop();
        stage.rest();
        let of_writer = |kind, names, writer: &Child| {
            truth(kind, names, vec![writer.id()], other("workload", vec![writer.id()]))
        };
        let pids = children.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let numbers = pids.iter().map(u32::to_string).collect();
        let at = std::ptr::from_ref(&mutex) as usize;
        let within = (at..at + size_of_val(&mutex)).map(|at| format!("{at:#x}"));
        let truths = BTreeMap::from([
            ("read_fifo", of_writer("pipe", shown(&fifo), &fifo_writer)),
            ("read_child", of_writer("pipe", vec![], &pipe_writer)),
            ("read_unix", of_writer("unix", shown(&path), &unix_writer)),
            ("read_v4", truth("tcp", vec![v4_server.to_string()], vec![], own("write-v4"))),
            ("read_v6", truth("tcp", vec![v6_server.to_string()], vec![], own("write-v6"))),
            ("lock_file", truth("file", shown(&locked), vec![], own("hold-file"))),
            ("lock_mutex", truth("futex", within.collect(), vec![], own("hold-mutex"))),
            ("sleep_on_clock", truth("clock", vec!["CLOCK_MONOTONIC".to_owned()], vec![], timer)),
            ("wait_for_child", truth("process", numbers, vec![], other("sleep", pids))),
        ]);
        for mut child in [fifo_writer, pipe_writer, unix_writer] {
            child.kill().and_then(|()| child.wait()).context("cannot end a child")?;
        }
        let finished = stopped.and_then(|control| control.finish(&truths));
        stage.end();
        finished
    })
}

/// Writes a byte at a time, to the pipe or socket at `path` or else to stdout, while it is read.
pub fn write(path: Option<&Path>) -> Result<()> {
    match path {
        None => write_paced(std::io::stdout()),
        Some(path) if fs::metadata(path)?.file_type().is_socket() => {
            write_paced(UnixStream::connect(path)?);
        }
        Some(path) => write_paced(File::options().write(true).open(path)?),
    }
    Ok(())
}

fn writer(path: Option<&Path>) -> Result<Child> {
    let mut command = Command::new(env::current_exe().context("cannot tell what runs")?);
    command.arg("write").args(path).stdin(Stdio::null());
    command.stdout(if path.is_some() { Stdio::null() } else { Stdio::piped() });
    command.spawn().context("cannot start a writer")
}

fn tcp(address: &str) -> Result<(TcpStream, TcpStream, SocketAddr)> {
    let listener = TcpListener::bind(address).context("cannot listen on loopback")?;
    let server = listener.local_addr().context("cannot tell the address of a socket")?;
    let client = TcpStream::connect(server).context("cannot connect on loopback")?;
    let (writer, _) = listener.accept().context("cannot accept on loopback")?;
    Ok((client, writer, server))
}

fn write_paced(mut writer: impl Write) {
    while !control::stopped() {
        thread::sleep(PACE);
        if writer.write_all(&[0]).and_then(|()| writer.flush()).is_err() {
            return;
        }
    }
}

fn drain(mut read: impl FnMut() -> bool) {
    while !control::stopped() && read() {}
}

fn lock_file_in_turn(mut file: File) {
    while !control::stopped() {
        let Some(free) = lock_file(file) else { return };
        file = free;
    }
}

fn lock_mutex_in_turn(mutex: &Mutex<()>) {
    while !control::stopped() {
        lock_mutex(mutex);
        thread::sleep(PACE / 5);
    }
}

fn hold_mutex(mutex: &Mutex<()>) {
    while !control::stopped() {
        let held = mutex.lock().unwrap_or_else(PoisonError::into_inner);
        thread::sleep(PACE);
        drop(held);
        thread::sleep(PACE / 5);
    }
}

fn sleep_in_turn() {
    while !control::stopped() {
        sleep_on_clock();
    }
}

/// Holds the lock of a file at a time.
fn hold_file(mut file: File) {
    while !control::stopped() {
        let Ok(held) = Flock::lock(file, FlockArg::LockExclusive) else { return };
        thread::sleep(PACE);
        let Ok(free) = held.unlock() else { return };
        thread::sleep(PACE / 5);
        file = free;
    }
}

/// Starts children one after the other, and notes their numbers.
fn wait_in_turn(children: &Mutex<Vec<u32>>) {
    while !control::stopped() {
        let Ok(child) = Command::new("sleep").arg(CHILD_SECONDS).spawn() else { return };
        let mut known = children.lock().unwrap_or_else(PoisonError::into_inner);
        known.push(child.id());
        drop(known);
        wait_for_child(child);
    }
}

fn one_byte(mut from: impl Read) -> bool {
    black_box(from.read(&mut [0]).is_ok_and(|bytes| bytes > 0))
}

#[inline(never)]
fn read_fifo(fifo: &File) -> bool {
    black_box(one_byte(fifo))
}

#[inline(never)]
fn read_child(pipe: &mut impl Read) -> bool {
    black_box(one_byte(pipe))
}

#[inline(never)]
fn read_unix(socket: &UnixStream) -> bool {
    black_box(one_byte(socket))
}

#[inline(never)]
fn read_v4(socket: &TcpStream) -> bool {
    // What the linker finds equal it makes one function.
    black_box(4);
    black_box(one_byte(socket))
}

#[inline(never)]
fn read_v6(socket: &TcpStream) -> bool {
    black_box(6);
    black_box(one_byte(socket))
}

/// Takes the lock of a file and gives it back.
#[inline(never)]
fn lock_file(file: File) -> Option<File> {
    let locked = Flock::lock(file, FlockArg::LockExclusive).ok()?;
    black_box(locked.unlock().ok())
}

#[inline(never)]
fn lock_mutex(mutex: &Mutex<()>) {
    drop(mutex.lock().unwrap_or_else(PoisonError::into_inner));
    black_box(());
}

#[inline(never)]
fn sleep_on_clock() {
    let length = TimeSpec::from(PACE);
    // A signal ends the sleep early, and the next one begins.
    let _ = clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::empty(), &length);
    black_box(());
}

#[inline(never)]
fn wait_for_child(mut child: Child) {
    let ended = child.wait();
    drop(black_box(ended));
}
