//! What can go wrong with a device.

use std::fmt;

/// An error of a GPU runtime.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No library of the runtime could be loaded.
    #[error("{runtime} is not there: {}", Tried(.tried))]
    NotThere {
        /// The runtime.
        runtime: &'static str,
        /// The libraries tried, and why each failed.
        tried: Vec<(String, String)>,
    },
    /// The library lacks a function that is needed.
    #[error("{runtime} ({library}) has no function {symbol}: it is too old")]
    MissingFunction {
        /// The runtime.
        runtime: &'static str,
        /// The library.
        library: String,
        /// The function.
        symbol: &'static str,
    },
    /// The runtime refused something.
    #[error("{what} (device {device}): {name} ({code})")]
    Call {
        /// What was tried.
        what: &'static str,
        /// The device, or `-` where none is meant.
        device: String,
        /// The error's name.
        name: String,
        /// The error's code.
        code: i32,
    },
    /// There is no device of that number.
    #[error("{runtime} has no device {ordinal}: {count} are visible")]
    NoSuchDevice {
        /// The runtime.
        runtime: &'static str,
        /// The number asked for.
        ordinal: usize,
        /// How many there are.
        count: usize,
    },
    /// Device memory ran out.
    #[error("device {device} has no room for {bytes} bytes")]
    OutOfMemory {
        /// The device.
        device: usize,
        /// The bytes asked for.
        bytes: usize,
    },
    /// A device cannot do what is needed.
    #[error("device {device} ({name}) cannot {what}")]
    Unsupported {
        /// The device.
        device: usize,
        /// Its name.
        name: String,
        /// What it cannot do.
        what: &'static str,
    },
    /// A copy or a fill does not lie in the memory.
    #[error("bytes {at}..{end} do not lie in memory of {len} bytes")]
    Range {
        /// The first byte.
        at: usize,
        /// The byte after the last.
        end: usize,
        /// The bytes there are.
        len: usize,
    },
    /// A kernel would need more blocks resident at once than fit.
    #[error("{kernel}: {asked} blocks were asked for, and {most} fit the device at once")]
    TooManyBlocks {
        /// The kernel.
        kernel: String,
        /// The blocks asked for.
        asked: u32,
        /// The most that fit.
        most: u32,
    },
}

struct Tried<'a>(&'a [(String, String)]);

impl fmt::Display for Tried<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (library, reason)) in self.0.iter().enumerate() {
            write!(f, "{}{library} ({reason})", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
