//! Rust: chains of known depth that end in each of the standard library's waits.

use std::{
    arch::asm,
    io::Read as _,
    os::unix::net::UnixStream,
    sync::{Condvar, Mutex, mpsc},
    thread,
    time::Duration,
};

const NAP: Duration = Duration::from_millis(4);

/// Stands after the last call of a function, which is then no tail call.
#[inline(always)]
fn stay() {
    // SAFETY: there is no instruction.
    unsafe { asm!("", options(nostack)) }
}

#[unsafe(no_mangle)]
#[inline(never)]
fn cell_sleep() {
    thread::sleep(NAP);
    stay();
}

#[unsafe(no_mangle)]
#[inline(never)]
fn cell_condvar() {
    let mutex = Mutex::new(());
    let never = Condvar::new();
    let guard = mutex.lock().unwrap();
    drop(never.wait_timeout(guard, NAP));
    stay();
}

#[unsafe(no_mangle)]
#[inline(never)]
fn cell_channel() {
    let (_sender, receiver) = mpsc::channel::<String>();
    assert!(receiver.recv_timeout(NAP).is_err());
    stay();
}

#[unsafe(no_mangle)]
#[inline(never)]
fn cell_socket() {
    let (mut ours, _theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(NAP)).unwrap();
    assert!(ours.read(&mut [0]).is_err());
    stay();
}

struct Guard;

impl Drop for Guard {
    #[inline(always)]
    fn drop(&mut self) {
        cell_sleep();
        stay();
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
fn cell_unwinding() {
    let _guard = Guard;
    std::panic::resume_unwind(Box::new("a panic that nobody hears"));
}

#[unsafe(no_mangle)]
#[inline(never)]
fn cell_catch() {
    assert!(std::panic::catch_unwind(cell_unwinding).is_err());
    stay();
}

unsafe extern "C" {
    safe fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    safe fn raise(number: i32) -> i32;
}

const SIGUSR1: i32 = 10;

#[unsafe(no_mangle)]
extern "C" fn cell_handler(_number: i32) {
    cell_sleep();
    stay();
}

#[unsafe(no_mangle)]
#[inline(never)]
fn cell_raise() {
    signal(SIGUSR1, cell_handler);
    raise(SIGUSR1);
    stay();
}

/// Calls itself as often as it is told, and then `leaf`.
#[unsafe(no_mangle)]
#[inline(never)]
fn cell_descend(depth: u32, leaf: fn()) {
    if depth == 0 {
        leaf();
    } else {
        cell_descend(depth - 1, leaf);
    }
    stay();
}

#[unsafe(no_mangle)]
#[inline(never)]
fn cell_work(depth: u32, leaf: fn()) {
    loop {
        cell_descend(depth, leaf);
        stay();
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
fn cell_until_closed() {
    let mut word = [0; 64];
    while std::io::stdin().read(&mut word).is_ok_and(|read| read > 0) {}
    std::process::exit(0);
}

fn main() {
    thread::spawn(cell_until_closed);
    for depth in [0, 20, 200] {
        thread::spawn(move || cell_work(depth, cell_sleep));
    }
    for leaf in [cell_condvar, cell_channel, cell_socket] {
        thread::spawn(move || cell_work(20, leaf));
    }
    if std::env::args().any(|argument| argument == "unwind") {
        thread::spawn(|| cell_work(3, cell_catch));
    }
    if std::env::args().any(|argument| argument == "signals") {
        thread::spawn(|| cell_work(3, cell_raise));
    }
    println!("ready {}", std::process::id());
    cell_work(20, cell_sleep);
}
