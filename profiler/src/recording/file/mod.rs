//! How a recording lies on disk.
//!
//! ```text
//! file   = magic (8 bytes)  version (u32)  block*
//! block  = packed length (u32)  raw length (u32)  crc32 of the payload (u32)
//!          crc32 of the three fields before (u32)  payload
//! ```
//!
//! Integers are little-endian. A payload is one zstd frame that no other block is needed for; what
//! it holds is [`Record`](super::Record)s in postcard's encoding, one after the other, none of them
//! cut by the block's end.
//!
//! The file only grows. Whatever kills the writer, all blocks but the last are whole, and what is
//! left of the last one is told from damage by its lengths, which have a checksum of their own: a
//! block that the file is too short for was being written, anything else that does not add up is
//! corrupt. Only an `End` record makes a recording finished, and nothing follows it.

mod invoker;
mod reader;
#[cfg(test)]
mod tests;
mod version1;
mod writer;

pub use invoker::give_to_invoker;
pub use reader::{Damage, ReadError, Records, read, records};
pub use writer::{MIN_LIMIT, WriteError, Writer};

/// Version of the format. Raise it when the shape of a record changes; keep reading the old ones.
pub const VERSION: u32 = 4;

/// The first bytes of every recording: a byte that no text has, the name, and a line end that
/// a transfer as text would change.
const MAGIC: [u8; 8] = *b"\x89STALL\r\n";

/// Length of the file's header.
const FILE_HEADER_BYTES: usize = MAGIC.len() + 4;

/// Raw bytes at which a block is closed: large enough to compress well, small enough to be cheap
/// to lose.
const BLOCK_BYTES: usize = 256 << 10;

/// Raw bytes of the largest record. The largest in earnest is a session with a command line of
/// several megabytes.
const MAX_RECORD_BYTES: usize = 16 << 20;

/// Raw bytes of the largest block: a record is added to a block that is not yet full.
const MAX_RAW_BYTES: usize = BLOCK_BYTES + MAX_RECORD_BYTES;

/// Compressed bytes of the largest block. zstd adds less than this to what it cannot compress.
const MAX_PACKED_BYTES: usize = MAX_RAW_BYTES + MAX_RAW_BYTES / 128 + 1024;

/// The file's header.
fn file_header() -> [u8; FILE_HEADER_BYTES] {
    let mut header = [0; FILE_HEADER_BYTES];
    header[..MAGIC.len()].copy_from_slice(&MAGIC);
    header[MAGIC.len()..].copy_from_slice(&VERSION.to_le_bytes());
    header
}

/// What stands before the payload of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BlockHeader {
    packed_bytes: u32,
    raw_bytes: u32,
    crc: u32,
}

impl BlockHeader {
    const BYTES: usize = 16;

    fn encode(self) -> [u8; Self::BYTES] {
        let Self { packed_bytes, raw_bytes, crc } = self;
        let mut bytes = [0; Self::BYTES];
        for (slot, field) in bytes.chunks_exact_mut(4).zip([packed_bytes, raw_bytes, crc]) {
            slot.copy_from_slice(&field.to_le_bytes());
        }
        let own_crc = crc32fast::hash(&bytes[..12]);
        bytes[12..].copy_from_slice(&own_crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: [u8; Self::BYTES]) -> Result<Self, Damage> {
        let mut fields = bytes.chunks_exact(4).map(|field| {
            u32::from_le_bytes(field.try_into().expect("chunks_exact(4) gives four bytes"))
        });
        let mut next = || fields.next().expect("a header of 16 bytes has four fields");
        let header = Self { packed_bytes: next(), raw_bytes: next(), crc: next() };
        if next() != crc32fast::hash(&bytes[..12]) {
            return Err(Damage::Header);
        }
        let lengths_hold = (1..=MAX_PACKED_BYTES).contains(&(header.packed_bytes as usize))
            && (1..=MAX_RAW_BYTES).contains(&(header.raw_bytes as usize));
        if lengths_hold { Ok(header) } else { Err(Damage::Length) }
    }
}
