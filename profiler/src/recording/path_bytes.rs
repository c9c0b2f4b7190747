//! Encodes paths as the bytes they are: serde's own encoding refuses those that are not UTF-8.
//!
//! Those that are UTF-8 lie in the file exactly as serde would put them. Formats for people show
//! them as text.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, Serializer};

pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    if to.is_human_readable() {
        return to.collect_str(&path.display());
    }
    to.serialize_bytes(path.as_os_str().as_bytes())
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    Vec::deserialize(from).map(|bytes| PathBuf::from(OsString::from_vec(bytes)))
}
