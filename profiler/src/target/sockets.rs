//! The sockets of a thread's network namespace, by inode.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::{fd::AsRawFd as _, unix::ffi::OsStrExt as _, unix::fs::MetadataExt as _},
    path::PathBuf,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
        sockopt::ReceiveTimeout,
    },
    sys::time::{TimeVal, TimeValLike as _},
};

use crate::units::Tid;

/// A socket of the Internet protocols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InetSocket {
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Its own address.
    pub local: SocketAddr,
    /// The other side's, where it is connected.
    pub peer: Option<SocketAddr>,
}

/// The Internet sockets that a thread's network namespace has now; all that can be read of them.
pub fn inet_sockets(tid: Tid) -> HashMap<u64, InetSocket> {
    let tables = [("tcp", "tcp"), ("tcp6", "tcp"), ("udp", "udp"), ("udp6", "udp")];
    let mut sockets = HashMap::new();
    for (table, protocol) in tables {
        let Ok(text) = fs::read_to_string(format!("/proc/{tid}/net/{table}")) else { continue };
        sockets.extend(text.lines().skip(1).filter_map(|line| parse_inet(line, protocol)));
    }
    sockets
}

/// One line of `/proc/net/{tcp,udp}{,6}`; `None` for sockets that no file is left of.
fn parse_inet(line: &str, protocol: &'static str) -> Option<(u64, InetSocket)> {
    let mut fields = line.split_ascii_whitespace();
    let local = parse_address(fields.nth(1)?)?;
    let peer = parse_address(fields.next()?)?;
    let inode = fields.nth(6)?.parse().ok().filter(|inode| *inode != 0)?;
    let peer = (peer.port() != 0).then_some(peer);
    Some((inode, InetSocket { protocol, local, peer }))
}

/// `0100007F:1F90`: words of the address as this machine would print its integers.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = [0; 16];
    let words = address.len() / 8;
    for (at, slot) in bytes.chunks_exact_mut(4).take(words).enumerate() {
        let word = u32::from_str_radix(address.get(8 * at..8 * at + 8)?, 16).ok()?;
        slot.copy_from_slice(&word.to_ne_bytes());
    }
    let address = match words {
        1 => IpAddr::from(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
        // A socket for both kinds that is connected by the older one says so in its address.
        4 => IpAddr::from(Ipv6Addr::from(bytes)).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

/// A Unix socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnixSocket {
    /// The name it is bound to; an abstract one begins with `@`.
    pub name: Option<PathBuf>,
    /// Inode of the socket that it is connected to.
    pub peer: Option<u64>,
}

/// Unix sockets of one network namespace, asked for one at a time.
pub struct UnixSockets {
    netlink: std::os::fd::OwnedFd,
}

/// How long the kernel may take for an answer; it gives it before the question returns.
const ANSWER_MS: i64 = 100;

impl UnixSockets {
    /// Those of a thread's network namespace. **The calling thread is in that namespace afterwards.**
    ///
    /// # Errors
    /// Without `CAP_SYS_ADMIN`, unless the thread is in the caller's own; or if the kernel has no
    /// `unix_diag`.
    pub fn of(tid: Tid) -> io::Result<Self> {
        let theirs = File::open(format!("/proc/{tid}/ns/net"))?;
        if fs::metadata("/proc/thread-self/ns/net")?.ino() != theirs.metadata()?.ino() {
            setns(&theirs, CloneFlags::CLONE_NEWNET)?;
        }
        let (family, kind) = (AddressFamily::Netlink, SockType::Raw);
        let flags = SockFlag::SOCK_CLOEXEC;
        let netlink = socket(family, kind, flags, SockProtocol::NetlinkSockDiag)?;
        setsockopt(&netlink, ReceiveTimeout, &TimeVal::milliseconds(ANSWER_MS))?;
        Ok(Self { netlink })
    }

    /// The socket of an inode; `None` if it is no Unix socket of this namespace.
    pub fn get(&self, inode: u64) -> Option<UnixSocket> {
        let inode = u32::try_from(inode).ok()?;
        let netlink = self.netlink.as_raw_fd();
        send(netlink, &question(inode), MsgFlags::empty()).ok()?;
        let mut answer = [0; 4096];
        let length = recv(netlink, &mut answer, MsgFlags::empty()).ok()?;
        parse_unix(answer.get(..length)?, inode)
    }
}

/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;

/// A `struct nlmsghdr` with a `struct unix_diag_req` of `linux/unix_diag.h`.
fn question(inode: u32) -> Vec<u8> {
    const BYTES: u32 = 16 + 24;
    const REQUEST: u16 = 1;
    const EVERY_STATE: u32 = u32::MAX;
    const SHOW_NAME_AND_PEER: u32 = 1 | 4;
    const NO_COOKIE: u32 = u32::MAX;
    let mut bytes = Vec::with_capacity(BYTES as usize);
    bytes.extend(BYTES.to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(REQUEST.to_ne_bytes());
    // A sequence number and a sender that nothing depends on.
    bytes.extend([0; 8]);
    bytes.extend([libc::AF_UNIX as u8, 0, 0, 0]);
    for word in [EVERY_STATE, inode, SHOW_NAME_AND_PEER, NO_COOKIE, NO_COOKIE] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes
}

/// A `struct nlmsghdr` with a `struct unix_diag_msg` and its attributes, or an error.
fn parse_unix(answer: &[u8], inode: u32) -> Option<UnixSocket> {
    const HEADER: usize = 16;
    const MESSAGE: usize = 16;
    const NAME: u16 = 0;
    const PEER: u16 = 2;
    let half = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    if half(4)? != BY_FAMILY || word(HEADER + 4)? != inode {
        return None;
    }
    let mut socket = UnixSocket::default();
    let mut at = HEADER + MESSAGE;
    while let (Some(length), Some(kind)) = (half(at), half(at + 2)) {
        let Some(value) = answer.get(at + 4..at + usize::from(length)) else { break };
        match kind {
            NAME => socket.name = Some(unix_name(value)),
            PEER => socket.peer = Some(word(at + 4)?.into()),
            _ => {}
        }
        at += usize::from(length).next_multiple_of(4);
    }
    Some(socket)
}

fn unix_name(bytes: &[u8]) -> PathBuf {
    let mut name = match bytes.split_first() {
        Some((0, rest)) => [b"@", rest].concat(),
        _ => bytes.to_vec(),
    };
    while name.last() == Some(&0) {
        name.pop();
    }
    OsStr::from_bytes(&name).into()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        os::unix::net::{UnixListener, UnixStream},
    };

    use super::*;
    use crate::target::{Descriptor, descriptor};

    fn own() -> Tid {
        Tid(std::process::id())
    }

    fn inode(socket: &impl std::os::fd::AsRawFd) -> u64 {
        let number = socket.as_raw_fd().cast_unsigned();
        match descriptor(own(), number).unwrap() {
            Descriptor::Socket(inode) => inode,
            other => panic!("{other:?} is no socket"),
        }
    }

    #[test]
    fn inet_sockets_are_found_with_both_addresses() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let local = listener.local_addr().unwrap();
            let stream = TcpStream::connect(local).unwrap();
            let sockets = inet_sockets(own());
            let expected = InetSocket { protocol: "tcp", local, peer: None };
            assert_eq!(sockets[&inode(&listener)], expected);
            let (local, peer) = (stream.local_addr().unwrap(), stream.peer_addr().ok());
            let expected = InetSocket { protocol: "tcp", local, peer };
            assert_eq!(sockets[&inode(&stream)], expected);
        }
    }

    #[test]
    fn unix_sockets_are_found_with_their_peers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        let (server, _) = listener.accept().unwrap();
        let sockets = UnixSockets::of(own()).unwrap();
        let check = |socket: u64, name: Option<&PathBuf>, peer: Option<u64>| {
            let expected = UnixSocket { name: name.cloned(), peer };
            assert_eq!(sockets.get(socket), Some(expected));
        };
        check(inode(&listener), Some(&path), None);
        check(inode(&client), None, Some(inode(&server)));
        check(inode(&server), Some(&path), Some(inode(&client)));
        assert_eq!(sockets.get(1 << 40), None);
    }

    #[test]
    fn addresses_are_words_of_this_machine() {
        let check = |text: &str, expected: &str| {
            assert_eq!(parse_address(text), expected.parse().ok(), "{text}");
        };
        check("0100007F:1F90", "127.0.0.1:8080");
        check("00000000000000000000000001000000:0016", "[::1]:22");
        check("0000000000000000FFFF00000500000A:1538", "10.0.0.5:5432");
        check("0100007F", "");
        check("01007F:1F90", "");
    }
}
