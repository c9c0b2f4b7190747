//! What a recording under way waits for.

use std::{io, os::fd::OwnedFd, time::Instant};

use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;

/// Waits until it is time to look for records, or there are so many that it is high time.
pub async fn records(next_look: Instant, events: &mut AsyncFd<RingBuf<MapData>>) -> io::Result<()> {
    tokio::select! {
        () = tokio::time::sleep_until(next_look.into()) => Ok(()),
        ready = events.readable_mut() => ready.map(|mut ready| ready.clear_ready()),
    }
}

/// Waits until mappings were made, and at least until an instant.
pub async fn told(rests: Option<Instant>, told: Option<&mut AsyncFd<OwnedFd>>) {
    if let Some(rests) = rests {
        tokio::time::sleep_until(rests.into()).await;
    }
    match told {
        Some(told) => match told.readable_mut().await {
            Ok(mut ready) => ready.clear_ready(),
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// Waits until an instant, forever if there is none.
pub async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
