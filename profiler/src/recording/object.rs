//! What threads waited on, as it was found when somebody looked.
//!
//! Encoded as the rest of [`super::facts`]: append only.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::path_bytes;
use crate::units::{Ktime, Pid};

/// Number of an object within a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectId(pub u32);

/// By what a process names an object to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Handle {
    /// A file descriptor.
    Descriptor(u32),
}

/// What a handle of a process stood for at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// When it was looked at.
    pub at: Ktime,
    /// The process.
    pub pid: Pid,
    /// Its handle.
    pub handle: Handle,
    /// What it stood for.
    pub object: ObjectId,
}

/// An object, given a number the first time it is seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Its number in this recording.
    pub id: ObjectId,
    /// What it is.
    pub thing: Thing,
}

/// What an object is. Addresses and paths are the target's, in its own namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Thing {
    /// Nothing any more: closed by then, or not to be looked at.
    Gone,
    /// A file, directory or device.
    File(#[serde(with = "path_bytes")] PathBuf),
    /// A pipe.
    Pipe {
        /// Its inode.
        inode: u64,
        /// Its path, where it has one.
        path: Option<PathBytes>,
        /// Who has its other end open.
        other_end: Vec<Holder>,
    },
    /// A socket of the Internet protocols.
    Inet {
        /// `tcp` or `udp`.
        protocol: String,
        /// Its own address.
        local: SocketAddr,
        /// The other side's, where it is connected.
        peer: Option<SocketAddr>,
    },
    /// A Unix socket. An abstract name begins with `@`.
    Unix {
        /// Its inode.
        inode: u64,
        /// The name it is bound to.
        name: Option<PathBytes>,
        /// The name that the other side is bound to.
        peer_name: Option<PathBytes>,
        /// Who has the other side open.
        peers: Vec<Holder>,
    },
    /// A socket of which only the inode is known.
    Socket {
        /// Its inode.
        inode: u64,
    },
    /// A process, by pidfd; 0 where it has ended.
    Process(Pid),
    /// What has no name and no inode of its own: `eventfd`, `timerfd`, `eventpoll`, `inotify`, ...
    Anonymous(String),
}

/// A path, kept as the bytes that it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PathBytes(#[serde(with = "path_bytes")] pub PathBuf);

/// A process that has an object open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Holder {
    /// The process.
    pub pid: Pid,
    /// Its name, up to 15 bytes.
    pub name: String,
}
