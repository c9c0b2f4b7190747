//! Unwind tables kept between recordings, by build-id.
//!
//! A table from here is believed without looking at the file it is of, by a program that often runs as
//! root. So nothing is read that another user could have written (`folder`), and what does not add up is
//! as good as not there.

mod folder;
#[cfg(test)]
mod tests;

use std::{
    env,
    ffi::OsString,
    fmt::Write as _,
    io::{self, Write as _},
    path::PathBuf,
    sync::Mutex,
};

use crate::unwind::{CodeIdentity, Table, table::stored};

use folder::Folder;

/// Bytes that all tables together may have. The one of libLLVM, a large library, has 5 MB.
const BYTES_MAX: u64 = 512 << 20;

/// Bytes of unwind information from which on a table is kept: one of less is made in the time in which a
/// file is opened.
const WORTH_KEEPING: u64 = 16 << 10;

/// Names the folder of the tables; empty: none are kept.
pub const VARIABLE: &str = "STALLSCOPE_CACHE";

/// Where a table came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was there.
    Kept,
    /// It was made.
    Made,
}

/// Tables kept on disk. Never fails: where there is no folder to be trusted, every table is made.
#[derive(Debug)]
pub struct TableCache {
    folder: Option<Folder>,
    /// Bytes that all tables have; `None` before the first one is added.
    bytes: Mutex<Option<u64>>,
    bytes_max: u64,
}

impl TableCache {
    /// The tables of whoever runs this program: in `$STALLSCOPE_CACHE`; else for root in
    /// `/var/cache/stallscope/tables`, for others in `stallscope/tables` of their own cache folder.
    ///
    /// Root's are never in a user's folder, whatever `sudo` leaves in the environment.
    pub fn open() -> Self {
        Self::in_folder(place(
            |variable| env::var_os(variable),
            rustix::process::geteuid().is_root(),
        ))
    }

    /// Keeps nothing.
    pub fn none() -> Self {
        Self::in_folder(None)
    }

    /// The tables in a folder, which is made if it is not there.
    pub fn in_folder(path: Option<PathBuf>) -> Self {
        let folder = path.and_then(|path| match Folder::open(&path) {
            Ok(folder) => Some(folder),
            Err(error) => {
                log::info!("unwind tables are not kept in {}: {error}", path.display());
                None
            }
        });
        Self { folder, bytes: Mutex::new(None), bytes_max: BYTES_MAX }
    }

    /// The table of a file: the one kept, else the one that `build` makes, which is then kept.
    ///
    /// Without an identity there is nothing to know it again by.
    pub fn table(
        &self,
        code: Option<&CodeIdentity>,
        build: impl FnOnce() -> Table,
    ) -> (Table, Origin) {
        let worth = |code: &&CodeIdentity| {
            code.eh_frame_bytes.saturating_add(code.debug_frame_bytes) >= WORTH_KEEPING
        };
        let (Some(folder), Some(code)) = (&self.folder, code.filter(worth)) else {
            return (build(), Origin::Made);
        };
        let (name, identity) = (name(code), identity(code));
        let kept = folder.open_file(&name).ok().and_then(|(file, bytes)| {
            let table = stored::read(&file, bytes, &identity)?;
            folder::touch(&file);
            Some(table)
        });
        if let Some(table) = kept {
            return (table, Origin::Kept);
        }
        let table = build();
        if let Err(error) = self.keep(folder, &name, &identity, &table) {
            log::info!("the unwind table {name} is not kept: {error}");
        }
        (table, Origin::Made)
    }

    fn keep(&self, folder: &Folder, name: &str, identity: &[u8], table: &Table) -> io::Result<()> {
        let added = folder.write(name, |file| {
            let mut out = io::BufWriter::new(file);
            stored::write(table, identity, &mut out)?;
            out.flush()
        })?;
        let mut bytes = self.bytes.lock().expect("nothing panics while it is held");
        let sum = match *bytes {
            Some(known) => known + added,
            None => folder.bytes()?,
        };
        *bytes = Some(if sum > self.bytes_max { folder.shrink(self.bytes_max)? } else { sum });
        Ok(())
    }
}

fn place(variable: impl Fn(&str) -> Option<OsString>, is_root: bool) -> Option<PathBuf> {
    let named = |name| variable(name).map(PathBuf::from);
    if let Some(folder) = named(VARIABLE) {
        return (!folder.as_os_str().is_empty()).then_some(folder);
    }
    if is_root {
        return Some(PathBuf::from("/var/cache/stallscope/tables"));
    }
    // A relative one is to be ignored, says the XDG base directory specification.
    let of_user = named("XDG_CACHE_HOME").filter(|folder| folder.is_absolute());
    let of_user = of_user.or_else(|| Some(named("HOME")?.join(".cache")))?;
    Some(of_user.join("stallscope/tables"))
}

/// All that a table depends on, as bytes.
fn identity(code: &CodeIdentity) -> Vec<u8> {
    let CodeIdentity { build_id, text, eh_frame_bytes, debug_frame_bytes } = code;
    let mut bytes = Vec::new();
    bytes.extend(eh_frame_bytes.to_le_bytes());
    bytes.extend(debug_frame_bytes.to_le_bytes());
    for segment in text {
        bytes.extend(segment.start.0.to_le_bytes());
        bytes.extend(segment.end.0.to_le_bytes());
    }
    bytes.extend(build_id);
    bytes
}

/// The build-id, as far as a file's name has room, and a sum that tells a stripped file from the whole one.
fn name(code: &CodeIdentity) -> String {
    /// Usual ones have 20 or fewer.
    const BYTES_MAX: usize = 32;
    let mut name = String::new();
    for byte in code.build_id.iter().take(BYTES_MAX) {
        write!(name, "{byte:02x}").expect("a String takes every write");
    }
    let sum = crc32fast::hash(&identity(code));
    write!(name, "-{sum:08x}{}", folder::SUFFIX).expect("a String takes every write");
    name
}
