//! Threads that wait in every common way, 1 to 9 ms a time.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    sync::Mutex,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    control::{self, Control},
    sites,
    stage::Stage,
};

const MS: Duration = Duration::from_millis(1);

/// The lengths of sleeps, in turn.
pub const SLEEPS: [Duration; 5] = [
    MS,
    Duration::from_millis(9),
    Duration::from_millis(3),
    Duration::from_millis(7),
    Duration::from_millis(5),
];

/// How long the other end of a pipe or socket lets its reader wait.
const PACE: Duration = Duration::from_millis(5);

/// Runs until told to stop, or for `seconds` without being asked.
pub fn run(seconds: Option<u64>) -> Result<()> {
    let (mut pipe_reader, pipe_writer) = io::pipe().context("cannot make a pipe")?;
    let (mut socket_reader, socket_writer) = socket_pair()?;
    let lock = Mutex::new(0);
    let works: Vec<Box<dyn FnOnce() + Send + '_>> = vec![
        Box::new(|| sleep_in_turn(|length| sites::SLEEP_MIX.time(|| sites::sleep_mix(length)))),
        Box::new(|| contend(&lock)),
        Box::new(|| contend(&lock)),
        Box::new(|| contend(&lock)),
        Box::new(|| write_paced(pipe_writer)),
        Box::new(|| write_paced(socket_writer)),
        Box::new(move || drain(|| sites::READ_PIPE.time(|| sites::read_pipe(&mut pipe_reader)))),
        Box::new(move || {
            drain(|| sites::READ_SOCKET.time(|| sites::read_socket(&mut socket_reader)));
        }),
        Box::new(start_late),
    ];
    let stage = &Stage::new(works.len());
    thread::scope(|scope| {
        for work in works {
            scope.spawn(move || stage.play(work));
        }
        let told = seconds.is_none().then(Control::ready).transpose();
        stage.begin();
        let stopped = match (told, seconds) {
            (Ok(Some(mut control)), _) => control.wait_for_stop().map(|()| Some(control)),
            (Ok(None), Some(seconds)) => {
                thread::sleep(Duration::from_secs(seconds));
                Ok(None)
            }
            (told, _) => told,
        };
        control::stop();
        stage.rest();
        let finished = stopped.and_then(|control| match control {
            Some(control) => control.finish(&sites::sums()),
            None => control::report(&sites::sums()),
        });
        stage.end();
        finished
    })
}

/// Sleeps by `sleep`, with lengths in turn, until stopped.
pub fn sleep_in_turn(sleep: impl Fn(Duration)) {
    for length in SLEEPS.into_iter().cycle() {
        if control::stopped() {
            return;
        }
        sleep(length);
    }
}

fn contend(lock: &Mutex<u64>) {
    while !control::stopped() {
        let mut held = sites::LOCK_CONTENDED.time(|| sites::lock_contended(lock));
        *held += 1;
        sites::SLEEP_HOLDING.time(|| sites::sleep_holding(4 * MS));
        drop(held);
        // Lets another one have it: std's lock is not fair.
        sites::SLEEP_MIX.time(|| sites::sleep_mix(MS));
    }
}

fn write_paced(mut writer: impl Write) {
    while !control::stopped() {
        thread::sleep(PACE);
        if writer.write_all(&[0]).is_err() {
            return;
        }
    }
}

fn drain(mut read: impl FnMut() -> bool) {
    while read() {}
}

/// Starts threads while the run lasts; each sleeps a few times and ends.
fn start_late() {
    while !control::stopped() {
        let late = thread::spawn(|| {
            for length in SLEEPS {
                sites::SLEEP_LATE.time(|| sites::sleep_late(length));
            }
        });
        late.join().expect("a thread that sleeps does not panic");
    }
}

fn socket_pair() -> Result<(impl Read, impl Write)> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on loopback")?;
    let address = listener.local_addr().context("cannot tell the address of a socket")?;
    let writer = TcpStream::connect(address).context("cannot connect on loopback")?;
    let (reader, _) = listener.accept().context("cannot accept on loopback")?;
    Ok((reader, writer))
}
