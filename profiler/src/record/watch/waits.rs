//! What a recording under way waits for.

use std::{io, os::fd::OwnedFd, time::Instant};

use aya::maps::{MapData, RingBuf};
use tokio::io::unix::{AsyncFd, AsyncFdReadyMutGuard};

/// Waits until there are records, and at least until an instant.
pub async fn readable(
    rests: Option<Instant>,
    events: &mut AsyncFd<RingBuf<MapData>>,
) -> io::Result<AsyncFdReadyMutGuard<'_, RingBuf<MapData>>> {
    if let Some(rests) = rests {
        tokio::time::sleep_until(rests.into()).await;
    }
    events.readable_mut().await
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
