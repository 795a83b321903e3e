//! The form of a file.
//!
//! ```text
//! "IRISIMG1"          8 bytes
//! the key's check    32 bytes
//! length of the log   8 bytes, little endian
//! length of the code  8 bytes, little endian
//! the log, the code
//! SHA-256 of all of the above
//! ```

use sha2::{Digest, Sha256};

use super::key::Key;
use crate::device::compile::Output;

const MAGIC: &[u8; 8] = b"IRISIMG1";
const HEADER: usize = 8 + 32 + 8 + 8;
const DIGEST: usize = 32;

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// It does not begin as an image does.
    #[error("it is no image")]
    Magic,
    /// It is shorter or longer than it says.
    #[error("it has {there} bytes in place of {expected}")]
    Length {
        /// Its bytes.
        there: u64,
        /// As many as it should have.
        expected: u64,
    },
    /// Its contents are not those that were written.
    #[error("its checksum is wrong")]
    Checksum,
    /// It is the image of something else.
    #[error("it belongs to another kernel")]
    OtherKey,
    /// It is a directory, a socket or the like.
    #[error("it is not a regular file")]
    NotAFile,
}

pub(super) fn encode(key: &Key, output: &Output) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + output.log.len() + output.bytes.len() + DIGEST);
    bytes.extend(MAGIC);
    bytes.extend(key.check);
    bytes.extend((output.log.len() as u64).to_le_bytes());
    bytes.extend((output.bytes.len() as u64).to_le_bytes());
    bytes.extend(output.log.as_bytes());
    bytes.extend(&output.bytes);
    let digest = Sha256::digest(&bytes);
    bytes.extend(digest);
    bytes
}

pub(super) fn decode(key: &Key, bytes: &[u8]) -> Result<Output, Damage> {
    let short = |expected: usize| Damage::Length {
        there: bytes.len() as u64,
        expected: expected as u64,
    };
    if !bytes.starts_with(MAGIC) {
        return Err(Damage::Magic);
    }
    if bytes.len() < HEADER + DIGEST {
        return Err(short(HEADER + DIGEST));
    }
    let number = |at: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(number)
    };
    let (log, code) = (number(40), number(48));
    let expected = (HEADER as u64 + DIGEST as u64)
        .saturating_add(log)
        .saturating_add(code);
    if bytes.len() as u64 != expected {
        return Err(Damage::Length {
            there: bytes.len() as u64,
            expected,
        });
    }
    let (contents, digest) = bytes.split_at(bytes.len() - DIGEST);
    if Sha256::digest(contents)[..] != *digest {
        return Err(Damage::Checksum);
    }
    if bytes[8..40] != key.check {
        return Err(Damage::OtherKey);
    }
    // Both lengths are below the file's.
    let (log, code) = contents[HEADER..].split_at(log as usize);
    Ok(Output {
        bytes: code.to_vec(),
        log: String::from_utf8_lossy(log).into_owned(),
    })
}
