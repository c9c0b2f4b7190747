//! What ends a recording from outside: Ctrl-C, SIGTERM, and the end of the terminal (SIGHUP).

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use rustix::process::{Signal, pidfd_send_signal};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{failure::Failure, terminal::say};

/// Listens for Ctrl-C, SIGTERM and SIGHUP on a thread of its own, so that the second one is heard even
/// while results are being written.
///
/// The first one turns the returned value true. The second one ends this process at once: the
/// kernel then detaches everything, and the recording is readable up to its last block. `command`
/// is a launched one, which gets the SIGTERM that it would have got.
///
/// # Errors
/// If no thread or signal handler can be had.
pub fn listen(command: Option<OwnedFd>) -> Result<watch::Receiver<bool>> {
    let (stop, stopped) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Who starts this under nohup wants it to outlive the terminal.
    let outlives_terminal = is_ignored(Signal::HUP)?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            if outlives_terminal { None } else { Some(signal(SignalKind::hangup())?) },
        )
    };
    std::thread::Builder::new()
        .name("stop".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                        () = heard(&mut hangup) => {}
                    }
                    if stop.send_replace(true) {
                        if let Some(command) = &command {
                            // An error means that it has ended.
                            let _ = pidfd_send_signal(command, Signal::TERM);
                        }
                        say(&format!("error: {}", Failure::Interrupted));
                        std::process::exit(Failure::Interrupted.code().into());
                    }
                }
            });
        })
        .context("cannot start a thread")?;
    Ok(stopped)
}

/// Waits for a signal that may not be listened to.
async fn heard(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Whether this process was started with a signal ignored.
fn is_ignored(signal: Signal) -> Result<bool> {
    let status = std::fs::read_to_string("/proc/self/status").context("cannot read own status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let mask = mask.context("own status does not say which signals are ignored")?;
    Ok(mask >> (signal.as_raw() - 1) & 1 == 1)
}
