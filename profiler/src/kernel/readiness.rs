//! Descriptors that tokio tells when they are readable.
#![expect(unsafe_code, reason = "tokio cannot know that a descriptor stays the same and open")]

use std::{io, os::fd::OwnedFd};

use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;

/// Watches the ring buffer: no polling while it is empty.
///
/// # Errors
/// If the reactor refuses.
pub fn of_ring(events: RingBuf<MapData>) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: the ring buffer owns the descriptor of its map and gives out no other.
    Ok(unsafe { AsyncFd::register(events) }?)
}

/// Watches a descriptor, such as a pidfd that becomes readable when its process ends.
///
/// # Errors
/// If the reactor refuses.
pub fn of_descriptor(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is one open descriptor for as long as it lives.
    Ok(unsafe { AsyncFd::register(descriptor) }?)
}
