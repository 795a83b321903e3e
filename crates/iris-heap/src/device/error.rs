//! What can go wrong with a device.

use super::MemoryKind;
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
    /// The runtime's version is one that cannot be used.
    #[error("{runtime} is of version {found}, and {needed} is the oldest that can be used")]
    TooOld {
        /// The runtime.
        runtime: &'static str,
        /// Its version.
        found: String,
        /// The oldest that can be used.
        needed: String,
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
    /// What a device's kernels are to be compiled for is not known.
    #[error("what device {device} is to have its kernels compiled for is not known: {reason}")]
    UnknownArchitecture {
        /// The device.
        device: usize,
        /// Why not.
        reason: String,
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
    /// A descriptor does not name memory that can be shared, or cannot be made.
    #[error("a descriptor of shared memory is not usable: {reason}")]
    Descriptor {
        /// Why not.
        reason: String,
    },
    /// An environment variable says what is not known.
    #[error("{variable} is `{value}`, and can be one of: {known}")]
    Setting {
        /// The variable.
        variable: &'static str,
        /// What it says.
        value: String,
        /// What it can say.
        known: &'static str,
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
    /// An address that is to be a device's memory lies in none that the runtime knows.
    #[error("{address:#x} lies in no memory that {runtime} knows")]
    UnknownMemory {
        /// The runtime.
        runtime: &'static str,
        /// The address.
        address: u64,
    },
    /// An address that is to be a device's memory lies in memory of another kind.
    #[error("{address:#x} lies in {kind}, and memory of device {device} is needed")]
    NotDeviceMemory {
        /// The address.
        address: u64,
        /// What it lies in.
        kind: MemoryKind,
        /// The device.
        device: usize,
    },
    /// Memory of another device than the one it is to be used on.
    #[error(
        "{address:#x} lies in memory of device {found}, and memory of device {device} is needed"
    )]
    WrongDevice {
        /// The address.
        address: u64,
        /// The device whose memory it is.
        found: usize,
        /// The device it is to be used on.
        device: usize,
    },
    /// An address is not a multiple of what its elements need.
    #[error("{address:#x} is not a multiple of {align}")]
    Misaligned {
        /// The address.
        address: u64,
        /// What it must be a multiple of.
        align: u64,
    },
    /// Memory ends before what is to lie in it.
    #[error("{asked} bytes are needed from {address:#x} on, and the memory ends after {found}")]
    TooSmall {
        /// The address.
        address: u64,
        /// The bytes needed.
        asked: u64,
        /// The bytes there are from the address on.
        found: u64,
    },
    /// A stream that somebody else made is not of the device, or of another context of it than the primary one.
    #[error("stream {stream:#x} is not of the primary context of device {device}")]
    WrongStream {
        /// The stream.
        stream: u64,
        /// The device.
        device: usize,
    },
    /// A capture was given up, since what was to be captured failed.
    #[error("the capture was given up")]
    CaptureGivenUp,
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
