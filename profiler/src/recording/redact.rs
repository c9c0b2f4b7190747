//! Takes out of a recording what a stranger must not read: arguments, paths of files and sockets
//! that are not code, and network addresses.
//!
//! What was one thing stays one thing: each path and each address has a number of its own, and
//! ports are kept.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use super::{
    facts::{Record, Session},
    model::Recording,
    object::{PathBytes, Thing},
};

/// What stands in for an argument.
const ARGUMENT: &str = "[redacted]";

/// Addresses that are for documentation and tests, and lead nowhere: RFC 2544 and RFC 3849.
const V4: u32 = 0xc612_0000;
const V6: u128 = 0x2001_0db8 << 96;

/// What was taken out so far.
#[derive(Clone, Debug, Default)]
pub struct Redaction {
    paths: HashMap<PathBuf, usize>,
    addresses: HashMap<IpAddr, usize>,
}

impl Redaction {
    /// Takes it out of a fact.
    pub fn record(&mut self, record: &mut Record) {
        match record {
            Record::Session(session) => arguments(session),
            Record::Object(object) => self.thing(&mut object.thing),
            _ => {}
        }
    }

    /// Takes it out of a whole recording.
    pub fn recording(&mut self, recording: &mut Recording) {
        arguments(&mut recording.session);
        let mut objects: Vec<_> = recording.objects.values_mut().collect();
        objects.sort_unstable_by_key(|object| object.id);
        for object in objects {
            self.thing(&mut object.thing);
        }
    }

    fn thing(&mut self, thing: &mut Thing) {
        match thing {
            Thing::File(path) => *path = self.path(path),
            Thing::Pipe { inode: _, path, other_end: _ } => {
                if let Some(path) = path {
                    self.path_bytes(path);
                }
            }
            Thing::Unix { inode: _, name, peer_name, peers: _ } => {
                for path in name.iter_mut().chain(peer_name) {
                    self.path_bytes(path);
                }
            }
            Thing::Inet { protocol: _, local, peer } => {
                self.address(local);
                if let Some(peer) = peer {
                    self.address(peer);
                }
            }
            Thing::Gone | Thing::Socket { .. } | Thing::Process(_) | Thing::Anonymous(_) => {}
        }
    }

    fn path_bytes(&mut self, path: &mut PathBytes) {
        path.0 = self.path(&path.0);
    }

    fn path(&mut self, path: &Path) -> PathBuf {
        let next = self.paths.len() + 1;
        let number = *self.paths.entry(path.to_owned()).or_insert(next);
        format!("[path {number}]").into()
    }

    /// Addresses of this machine to itself say nothing and are kept.
    fn address(&mut self, address: &mut SocketAddr) {
        let ip = address.ip();
        if ip.is_loopback() || ip.is_unspecified() {
            return;
        }
        let next = self.addresses.len() + 1;
        let number = *self.addresses.entry(ip).or_insert(next);
        address.set_ip(match ip {
            IpAddr::V4(_) => Ipv4Addr::from_bits(V4 + number as u32).into(),
            IpAddr::V6(_) => Ipv6Addr::from_bits(V6 + number as u128).into(),
        });
    }
}

fn arguments(session: &mut Session) {
    for argument in session.target.command.iter_mut().skip(1) {
        ARGUMENT.clone_into(argument);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_private_is_numbered() {
        let mut redaction = Redaction::default();
        let mut check = |mut thing: Thing, expected: Thing| {
            redaction.thing(&mut thing);
            assert_eq!(thing, expected);
        };
        let file = |path: &str| Thing::File(path.into());
        check(file("/home/ann/letters"), file("[path 1]"));
        check(file("/home/bob/letters"), file("[path 2]"));
        check(file("/home/ann/letters"), file("[path 1]"));
        let unix = |name: &str| Thing::Unix {
            inode: 1,
            name: None,
            peer_name: Some(PathBytes(name.into())),
            peers: vec![],
        };
        check(unix("@secret"), unix("[path 3]"));
        let inet = |local: &str, peer: &str| Thing::Inet {
            protocol: "tcp".to_owned(),
            local: local.parse().unwrap_or(([0, 0, 0, 0], 0).into()),
            peer: peer.parse().ok(),
        };
        check(inet("127.0.0.1:40000", "10.0.0.5:5432"), inet("127.0.0.1:40000", "198.18.0.1:5432"));
        check(inet("[fe80::1]:80", ""), inet("[2001:db8::2]:80", ""));
        check(inet("10.0.0.5:1", "[::1]:2"), inet("198.18.0.1:1", "[::1]:2"));
    }
}
