//! A folder that nobody else can change, and the files in it.
//!
//! Every step to it is opened by itself and looked at: no links, and no owner or permission by which another user
//! could put something else in its place. What is open cannot be swapped any more; files are reached through it.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Error, ErrorKind},
    os::fd::{AsFd as _, OwnedFd},
    path::{Component, Path},
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{self, AtFlags, CWD, FileType, Mode, OFlags, Stat, Timestamps},
    process::{getegid, geteuid},
};

/// How the names of tables end.
pub const SUFFIX: &str = ".table";

/// How the names of tables end while they are written; what a crash leaves goes when room is made.
const UNFINISHED: &str = ".unfinished";

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An open folder that only this user can write in.
#[derive(Debug)]
pub struct Folder(OwnedFd);

struct Entry {
    name: String,
    bytes: u64,
    used: i64,
}

impl Folder {
    /// Opens a folder; makes what is missing of it.
    ///
    /// # Errors
    /// If a step to it is a link or can be changed by others, or if it cannot be made.
    pub fn open(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let mut folder = fs::openat(CWD, "/", FOLDER, Mode::empty())?;
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => folder = step(&folder, name)?,
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(Error::new(ErrorKind::InvalidInput, "it has .. in it"));
                }
            }
        }
        if !is_own(&fs::fstat(&folder)?) {
            return Err(distrusted("others can write in it"));
        }
        Ok(Self(folder))
    }

    /// Opens a file for reading; its size.
    ///
    /// # Errors
    /// If there is none that only this user can have written.
    pub fn open_file(&self, name: &str) -> io::Result<(File, u64)> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = fs::openat(&self.0, name, flags, Mode::empty())?;
        let stat = fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || !is_own(&stat) {
            return Err(distrusted("others can write it"));
        }
        Ok((file.into(), stat.st_size as u64))
    }

    /// Puts a file in the place of one of that name, whole or not at all; its size.
    pub fn write(
        &self,
        name: &str,
        write: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<u64> {
        let unfinished = format!("{name}.{}{UNFINISHED}", std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let _ = fs::unlinkat(&self.0, &unfinished, AtFlags::empty());
        let file = File::from(fs::openat(&self.0, &unfinished, flags, mode)?);
        let written = write(&file).and_then(|()| Ok(file.metadata()?.len())).and_then(|bytes| {
            Ok(fs::renameat(&self.0, &unfinished, &self.0, name).map(|()| bytes)?)
        });
        if written.is_err() {
            let _ = fs::unlinkat(&self.0, &unfinished, AtFlags::empty());
        }
        written
    }

    /// Bytes of all tables.
    pub fn bytes(&self) -> io::Result<u64> {
        Ok(self.entries()?.iter().map(|entry| entry.bytes).sum())
    }

    /// Removes tables, those that were not used for longest first, until they have no more than `bytes`
    /// bytes; how many they then have.
    pub fn shrink(&self, bytes: u64) -> io::Result<u64> {
        let mut entries = self.entries()?;
        entries.sort_by_key(|entry| entry.used);
        let mut sum = entries.iter().map(|entry| entry.bytes).sum::<u64>();
        for entry in entries {
            if sum <= bytes {
                break;
            }
            fs::unlinkat(&self.0, &entry.name, AtFlags::empty())?;
            sum -= entry.bytes;
        }
        Ok(sum)
    }

    /// Our own files only: somebody may have named a folder that has others.
    fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::Dir::read_from(&self.0)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if !name.ends_with(SUFFIX) && !name.ends_with(UNFINISHED) {
                continue;
            }
            // It may just have been removed by another recorder.
            let Ok(stat) = fs::statat(&self.0, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            entries.push(Entry { name, bytes: stat.st_size as u64, used: stat.st_mtime });
        }
        Ok(entries)
    }
}

/// Marks a file as used now. The time of its last reading is something that many systems do not keep.
pub fn touch(file: &File) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now =
        fs::Timespec { tv_sec: now.as_secs().cast_signed(), tv_nsec: now.subsec_nanos().into() };
    // It goes earlier than it might, no more.
    let _ = fs::futimens(file.as_fd(), &Timestamps { last_access: now, last_modification: now });
}

/// Opens a folder in a folder, made if it is not there.
fn step(folder: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    let next = match fs::openat(folder, name, FOLDER, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => {
            match fs::mkdirat(folder, name, Mode::RWXU) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            fs::openat(folder, name, FOLDER, Mode::empty())?
        }
        opened => opened?,
    };
    if !is_safe(&fs::fstat(&next)?) {
        return Err(distrusted(&format!("others can change {}", name.display())));
    }
    Ok(next)
}

/// Whether nobody but root and this user can put something else in the place of what is in a folder.
fn is_safe(folder: &Stat) -> bool {
    let owned = folder.st_uid == 0 || folder.st_uid == geteuid().as_raw();
    let mode = Mode::from_raw_mode(folder.st_mode);
    // In a sticky folder everybody can remove only what is theirs.
    let sticky = mode.contains(Mode::SVTX);
    // Many systems give each user a group of their own and let it write.
    let own_group = !geteuid().is_root() && folder.st_gid == getegid().as_raw();
    let by_group = mode.contains(Mode::WGRP) && !own_group;
    owned && (sticky || !(by_group || mode.contains(Mode::WOTH)))
}

/// Whether only this user can have written it.
fn is_own(stat: &Stat) -> bool {
    let writable = Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH);
    stat.st_uid == geteuid().as_raw() && !writable
}

fn distrusted(why: &str) -> Error {
    Error::new(ErrorKind::PermissionDenied, why.to_owned())
}
