//! What a file descriptor of a process is, and which processes have the same thing open.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, makedev, statx};

use super::process_name;
use crate::units::{Pid, Tid};

/// What a descriptor is, as the link in `/proc/TID/fd` says it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Descriptor {
    /// A file, directory or device, by the path that the process has for it.
    File(PathBuf),
    /// A pipe with a path, by that and its device and inode.
    Fifo(PathBuf, u64, u64),
    /// A pipe, by its inode.
    Pipe(u64),
    /// A socket, by its inode.
    Socket(u64),
    /// What has neither path nor inode of its own, by the kernel's name for it: `eventfd`, ...
    Anonymous(String),
}

/// What a descriptor of a thread is. Opens nothing, and waits for no file system.
///
/// # Errors
/// If the thread or the descriptor is gone, or may not be looked at.
pub fn descriptor(tid: Tid, number: u32) -> io::Result<Descriptor> {
    let path = format!("/proc/{tid}/fd/{number}");
    let link = fs::read_link(&path)?;
    let found = parse(link.as_os_str().as_bytes());
    if let Descriptor::File(file) = &found
        && let Some((device, inode)) = fifo(Path::new(&path))
    {
        return Ok(Descriptor::Fifo(file.clone(), device, inode));
    }
    Ok(found)
}

/// The process behind a pidfd; 0 where it has ended.
pub fn pidfd_process(tid: Tid, number: u32) -> Option<Pid> {
    let info = fs::read_to_string(format!("/proc/{tid}/fdinfo/{number}")).ok()?;
    let pid: i64 = info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?;
    Some(Pid(u32::try_from(pid).unwrap_or(0)))
}

/// Which end of a pipe a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// It can be read.
    pub reads: bool,
    /// It can be written.
    pub writes: bool,
}

/// Which end of a pipe a descriptor is.
pub fn ends(tid: Tid, number: u32) -> Option<Ends> {
    let info = fs::read_to_string(format!("/proc/{tid}/fdinfo/{number}")).ok()?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    let flags = i32::from_str_radix(flags.trim(), 8).ok()?;
    let mode = flags & libc::O_ACCMODE;
    Some(Ends { reads: mode != libc::O_WRONLY, writes: mode != libc::O_RDONLY })
}

/// A process that has something open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opener {
    /// The process.
    pub pid: Pid,
    /// Its name, up to 15 bytes.
    pub name: String,
    /// Which end, where it is a pipe's.
    pub ends: Ends,
}

/// Who has these open, of all processes that can be looked at: one pass over all descriptors.
pub fn openers(wanted: &[Descriptor]) -> HashMap<Descriptor, Vec<Opener>> {
    let mut found: HashMap<Descriptor, Vec<Opener>> = HashMap::new();
    let Ok(processes) = fs::read_dir("/proc") else { return found };
    let pids =
        processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).map(Pid);
    for pid in pids {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for entry in descriptors.flatten() {
            let Ok(link) = fs::read_link(entry.path()) else { continue };
            let is_meant = |wanted: &&Descriptor| match wanted {
                Descriptor::Fifo(path, device, inode) => {
                    link.file_name() == path.file_name()
                        && fifo(&entry.path()) == Some((*device, *inode))
                }
                wanted => **wanted == parse(link.as_os_str().as_bytes()),
            };
            let Some(meant) = wanted.iter().find(is_meant) else { continue };
            let number = entry.file_name().to_str().and_then(|number| number.parse().ok());
            let Some(ends) = number.and_then(|number| ends(Tid(pid.0), number)) else { continue };
            let name = process_name(pid).unwrap_or_default();
            found.entry(meant.clone()).or_default().push(Opener { pid, name, ends });
        }
    }
    found
}

fn parse(link: &[u8]) -> Descriptor {
    let inode = |prefix: &str| {
        let rest = link.strip_prefix(prefix.as_bytes())?.strip_suffix(b"]")?;
        std::str::from_utf8(rest).ok()?.parse().ok()
    };
    if let Some(inode) = inode("pipe:[") {
        return Descriptor::Pipe(inode);
    }
    if let Some(inode) = inode("socket:[") {
        return Descriptor::Socket(inode);
    }
    if let Some(name) = link.strip_prefix(b"anon_inode:") {
        let name = String::from_utf8_lossy(name);
        return Descriptor::Anonymous(name.trim_matches(['[', ']']).to_owned());
    }
    Descriptor::File(OsStr::from_bytes(link).into())
}

/// Device and inode of a pipe with a path; `None` for what is no pipe.
fn fifo(path: &Path) -> Option<(u64, u64)> {
    // A file system that hangs must not be asked.
    let found =
        statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE | StatxFlags::INO).ok()?;
    let is_fifo = FileType::from_raw_mode(found.stx_mode.into()) == FileType::Fifo;
    is_fifo.then(|| (makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_say_what_a_descriptor_is() {
        let check = |link: &str, expected: Descriptor| {
            assert_eq!(parse(link.as_bytes()), expected, "{link}");
        };
        check("pipe:[4711]", Descriptor::Pipe(4711));
        check("socket:[4712]", Descriptor::Socket(4712));
        check("anon_inode:[eventpoll]", Descriptor::Anonymous("eventpoll".to_owned()));
        check("anon_inode:inotify", Descriptor::Anonymous("inotify".to_owned()));
        check("/srv/socket:[1]", Descriptor::File("/srv/socket:[1]".into()));
        check("socket:[x]", Descriptor::File("socket:[x]".into()));
    }
}
