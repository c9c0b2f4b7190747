//! The executable mappings of a process, and the bytes behind them.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use nix::sys::stat::{major, minor};

use super::{failure_of, process::without_deleted, unreadable};
use crate::units::{Avma, FileOffset, Pid};

/// One executable mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecMapping {
    /// First address.
    pub start: Avma,
    /// First address after it.
    pub end: Avma,
    /// Offset in the file of the first address.
    pub offset: FileOffset,
    /// The file as the process sees it, without ` (deleted)`; for what is no file, the kernel's
    /// name for it, which may be empty.
    pub path: PathBuf,
    /// Whether the file had been unlinked.
    pub deleted: bool,
    /// The file's inode, 0 for what is no file.
    pub inode: u64,
    /// The file's device, major and minor. btrfs and overlayfs state another here than in `stat`.
    pub dev: (u32, u32),
    /// What is mapped.
    pub kind: MappingKind,
}

/// What is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MappingKind {
    /// A file, an ELF file or not; also one that exists only in memory (`memfd_create`).
    File,
    /// The kernel's own code for user space.
    Vdso,
    /// Memory that no file backs: generated code.
    Anonymous,
    /// Anything else: `[vsyscall]`, `[uprobes]`, devices.
    Other,
}

/// The executable mappings of a process, in order of their addresses.
pub fn mappings(pid: Pid) -> anyhow::Result<Vec<ExecMapping>> {
    let maps =
        fs::read(format!("/proc/{pid}/maps")).map_err(|error| unreadable(pid, "maps", error))?;
    if maps.is_empty() {
        // A process that is ending has given its memory back already.
        let gone = failure_of(pid, &io::ErrorKind::NotFound.into());
        return Err(gone.expect("a file that is not found is a failure").into());
    }
    Ok(maps.split(|&byte| byte == b'\n').filter_map(parse_line).collect())
}

/// Opens the file behind a mapping, also one that is deleted or in another mount namespace.
///
/// An error says `NotFound` if what lies at the path by now is another file.
pub fn open_mapped(pid: Pid, mapping: &ExecMapping) -> io::Result<File> {
    let ExecMapping { start, end, path, deleted, inode, dev, kind, .. } = mapping;
    if *kind != MappingKind::File {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no file is mapped there"));
    }
    // Needs CAP_CHECKPOINT_RESTORE (CAP_SYS_ADMIN before Linux 5.9). The other ways do not.
    let by_address = format!("/proc/{pid}/map_files/{:x}-{:x}", start.0, end.0);
    if let Ok(file) = open_regular(Path::new(&by_address)) {
        return Ok(file);
    }
    let is_same = |file: &File| {
        let found = file.metadata()?;
        let found_dev = (major(found.dev()) as u32, minor(found.dev()) as u32);
        // Without a device of its own, the file system may tell `maps` another than `stat`.
        Ok::<_, io::Error>(found.ino() == *inode && (found_dev == *dev || dev.0 == 0))
    };
    let exe = PathBuf::from(format!("/proc/{pid}/exe"));
    if let Ok(link) = fs::read_link(&exe)
        && without_deleted(&link) == (path.clone(), *deleted)
        && let Ok(file) = open_regular(&exe)
        && is_same(&file)?
    {
        return Ok(file);
    }
    let inside = path.strip_prefix("/").unwrap_or(path);
    let file = open_regular(&Path::new(&format!("/proc/{pid}/root")).join(inside))?;
    if is_same(&file)? {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::NotFound, "the file was replaced since it was mapped"))
    }
}

/// Opens nothing but regular files: opening a device can do something.
fn open_regular(path: &Path) -> io::Result<File> {
    if fs::metadata(path)?.is_file() {
        File::open(path)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}

/// A line of `maps`, `None` if it is not executable or not such a line.
fn parse_line(line: &[u8]) -> Option<ExecMapping> {
    let mut rest = line;
    let mut next = || {
        let (field, after) = match rest.iter().position(|&byte| byte == b' ') {
            Some(space) => (&rest[..space], rest[space..].trim_ascii_start()),
            None => (rest, &[][..]),
        };
        rest = after;
        std::str::from_utf8(field).ok()
    };
    let (range, permissions, offset, dev, inode) = (next()?, next()?, next()?, next()?, next()?);
    if permissions.as_bytes().get(2) != Some(&b'x') {
        return None;
    }
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let (start, end) = range.split_once('-')?;
    let (major, minor) = dev.split_once(':')?;
    let inode = inode.parse().ok()?;
    let name = unescaped(rest);
    let (path, deleted) = without_deleted(Path::new(OsStr::from_bytes(&name)));
    Some(ExecMapping {
        start: Avma(hex(start)?),
        end: Avma(hex(end)?),
        offset: FileOffset(hex(offset)?),
        kind: kind(path.as_os_str().as_bytes(), inode),
        path,
        deleted,
        inode,
        dev: (hex(major)? as u32, hex(minor)? as u32),
    })
}

fn kind(name: &[u8], inode: u64) -> MappingKind {
    const ANONYMOUS: [&[u8]; 7] =
        [b"//anon", b"/anon_hugepage", b"/dev/zero", b"/SYSV", b"[anon", b"[heap]", b"[stack"];
    if name == b"[vdso]" {
        MappingKind::Vdso
    } else if name.is_empty() || ANONYMOUS.iter().any(|start| name.starts_with(start)) {
        MappingKind::Anonymous
    } else if name.starts_with(b"/")
        && inode != 0
        && (!name.starts_with(b"/dev/") || name.starts_with(b"/dev/shm/"))
    {
        MappingKind::File
    } else {
        MappingKind::Other
    }
}

/// The kernel writes a line end in a path as `\012`, and nothing else differently.
fn unescaped(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&first, others)) = rest.split_first() {
        let (byte, after) =
            rest.strip_prefix(br"\012").map_or((first, others), |after| (b'\n', after));
        plain.push(byte);
        rest = after;
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &[u8], path: &[u8], deleted: bool, kind: MappingKind) {
        let expected = ExecMapping {
            start: Avma(0x7f12_3456_7000),
            end: Avma(0x7f12_3456_9000),
            offset: FileOffset(0x1a000),
            path: PathBuf::from(OsStr::from_bytes(path)),
            deleted,
            inode: if line.windows(8).any(|part| part == b" 00:00 0") { 0 } else { 4711 },
            dev: if line.windows(6).any(|part| part == b" 00:00") { (0, 0) } else { (0xfd, 0x1f) },
            kind,
        };
        assert_eq!(parse_line(line), Some(expected), "{}", String::from_utf8_lossy(line));
    }

    #[test]
    fn executable_lines_are_read() {
        const FILE: &[u8] = b"7f1234567000-7f1234569000 r-xp 0001a000 fd:1f 4711      ";
        const NONE: &[u8] = b"7f1234567000-7f1234569000 r-xp 0001a000 00:00 0         ";
        let file = |name: &[u8], path: &[u8], deleted, kind| {
            check(&[FILE, name].concat(), path, deleted, kind);
        };
        let none = |name: &[u8], kind| check(&[NONE, name].concat(), name, false, kind);
        file(b"/usr/lib/libc.so.6", b"/usr/lib/libc.so.6", false, MappingKind::File);
        file(b"/opt/a b  c/d", b"/opt/a b  c/d", false, MappingKind::File);
        file(b"/opt/x (deleted)", b"/opt/x", true, MappingKind::File);
        file(br"/opt/a\012b", b"/opt/a\nb", false, MappingKind::File);
        file(b"/opt/caf\xe9", b"/opt/caf\xe9", false, MappingKind::File);
        file(b"/memfd:jit (deleted)", b"/memfd:jit", true, MappingKind::File);
        file(b"/dev/shm/code", b"/dev/shm/code", false, MappingKind::File);
        file(b"/dev/zero (deleted)", b"/dev/zero", true, MappingKind::Anonymous);
        file(b"/dev/nvidia0", b"/dev/nvidia0", false, MappingKind::Other);
        file(b"/SYSV00000000 (deleted)", b"/SYSV00000000", true, MappingKind::Anonymous);
        file(b"/anon_hugepage (deleted)", b"/anon_hugepage", true, MappingKind::Anonymous);
        none(b"", MappingKind::Anonymous);
        none(b"//anon", MappingKind::Anonymous);
        none(b"[anon:jit code]", MappingKind::Anonymous);
        none(b"[heap]", MappingKind::Anonymous);
        none(b"[vdso]", MappingKind::Vdso);
        none(b"[vsyscall]", MappingKind::Other);
        none(b"[uprobes]", MappingKind::Other);
        check(
            b"7f1234567000-7f1234569000 rwxs 0001a000 00:00 0",
            b"",
            false,
            MappingKind::Anonymous,
        );
    }

    #[test]
    fn other_lines_are_left_out() {
        for line in [
            &b"7f1234567000-7f1234569000 r--p 00000000 fd:01 4711 /usr/lib/libc.so.6"[..],
            b"7f1234567000 r-xp 00000000 fd:01 4711 /usr/lib/libc.so.6",
            b"7f1234567000-7f1234569000 r-xp 00000000 fd01 4711 /x",
            b"7f1234567000-7f1234569000 r-xp 00000000 fd:01",
            b"zz-7f1234569000 r-xp 00000000 fd:01 4711 /x",
            b"",
        ] {
            assert_eq!(parse_line(line), None, "{}", String::from_utf8_lossy(line));
        }
    }
}
