//! What can go wrong between the ranks of a world.

use crate::device::DeviceError;
use crate::host::buffer::RangeError;
use std::fmt;
use std::io;
use std::time::Duration;

/// An error of a world: its rendezvous, its collectives, its heap.
///
/// An error that follows from what several ranks did names the same ranks on all of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorldError {
    /// A world of no ranks was asked for.
    #[error("a world has at least 1 rank, not 0")]
    NoRanks,
    /// More ranks than a world can have.
    #[error("a world of {ranks} ranks was asked for, and can have {max} at most")]
    TooManyRanks {
        /// The ranks asked for.
        ranks: usize,
        /// [`MAX_RANKS`](crate::MAX_RANKS).
        max: usize,
    },
    /// A rank that the world does not have.
    #[error("rank {rank} does not exist in a world of {size}")]
    NoSuchRank {
        /// The rank asked for.
        rank: usize,
        /// The world's ranks.
        size: usize,
    },
    /// The heaps of all ranks together are larger than the address space.
    #[error("{size} heaps of {heap_bytes} bytes do not fit an address space")]
    HeapTooLarge {
        /// The world's ranks.
        size: usize,
        /// The bytes of one rank's heap.
        heap_bytes: usize,
    },
    /// Not all ranks came to a collective in time.
    #[error(
        "{during}: waited {} ms, and {} did not come", .waited.as_millis(), Ranks(.missing)
    )]
    Timeout {
        /// The collective.
        during: String,
        /// How long it was waited for.
        waited: Duration,
        /// The ranks that did not come.
        missing: Vec<usize>,
    },
    /// A rank died: its process ended, or its thread panicked.
    #[error("rank {rank} died ({during})")]
    RankDied {
        /// The dead rank.
        rank: usize,
        /// The collective that it was missed in.
        during: String,
    },
    /// A rank left the world in good order and cannot take part in collectives any more.
    #[error("rank {rank} has left the world ({during})")]
    RankLeft {
        /// The rank that left.
        rank: usize,
        /// The collective that it was missed in.
        during: String,
    },
    /// Two ranks made different collective calls.
    #[error("rank {rank} called {theirs} where rank {other_rank} called {ours}")]
    CollectiveMismatch {
        /// The rank whose call was the other one.
        rank: usize,
        /// What it called.
        theirs: String,
        /// The rank that came first.
        other_rank: usize,
        /// What that one called.
        ours: String,
    },
    /// Two ranks gave different values to something that must be the same on all.
    #[error("{what}: field `{field}` is {theirs} on rank {rank}, and {ours} on rank {other_rank}")]
    Disagreement {
        /// What was to be agreed on.
        what: String,
        /// The field that differs.
        field: String,
        /// The lowest rank whose value differs from that of rank 0.
        rank: usize,
        /// Its value.
        theirs: String,
        /// The rank compared with: 0.
        other_rank: usize,
        /// That one's value.
        ours: String,
    },
    /// The symmetric heap has no room. All ranks decide so, or none.
    #[error(
        "the symmetric heap is full: {needed} bytes are needed, {free} of {heap} are free, {largest} in one piece"
    )]
    HeapFull {
        /// The bytes asked for, rounded up to the alignment.
        needed: usize,
        /// The bytes free.
        free: usize,
        /// The largest free piece.
        largest: usize,
        /// The bytes of one rank's heap.
        heap: usize,
    },
    /// The host has no memory for a buffer of a rank's own. A device says so by [`DeviceError::OutOfMemory`].
    #[error("rank {rank}'s process has no room for {bytes} bytes")]
    OutOfMemory {
        /// The rank.
        rank: usize,
        /// The bytes asked for; `usize::MAX` where they are more than that.
        bytes: usize,
    },
    /// An alignment that is no power of two, or larger than a page.
    #[error("an alignment of {align} bytes cannot be had: it must be a power of two, 4096 at most")]
    Alignment {
        /// The alignment asked for.
        align: usize,
    },
    /// The region to be freed is not allocated in this world's heap.
    #[error("the region at offset {offset} is not allocated in this world's heap")]
    UnknownRegion {
        /// The region's offset.
        offset: usize,
    },
    /// A buffer or window to be freed is still in use through a clone.
    #[error("rank {rank} still has clones of what is to be freed")]
    StillShared {
        /// The lowest rank that has.
        rank: usize,
    },
    /// A plain buffer was given where only symmetric memory can be freed.
    #[error("rank {rank} gave a plain buffer to be freed; dropping it frees it")]
    NotSymmetric {
        /// The lowest rank that did.
        rank: usize,
    },
    /// Another rank could not do its part.
    #[error("{during}: rank {rank} failed: {error}")]
    RankFailed {
        /// The lowest rank that failed.
        rank: usize,
        /// What it was to do.
        during: String,
        /// What it said.
        error: String,
    },
    /// A range that a buffer does not have.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// A device refused something.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A rank found no device of its own.
    #[error(
        "rank {rank} of {size} finds {count} devices: each rank needs one of its own, unless sharing is allowed"
    )]
    TooFewDevices {
        /// The rank.
        rank: usize,
        /// The world's ranks.
        size: usize,
        /// The devices visible to it.
        count: usize,
    },
    /// Two ranks would use one device.
    #[error(
        "ranks {rank} and {other} would share device {device}: give each its own (CUDA_VISIBLE_DEVICES, HIP_VISIBLE_DEVICES), or allow sharing"
    )]
    SharedDevice {
        /// The lower rank.
        rank: usize,
        /// The other rank.
        other: usize,
        /// The device, as its rank names it.
        device: String,
    },
    /// A device cannot reach another's memory.
    #[error(
        "device {device} of rank {rank} cannot reach the memory of {peer_device} of rank {peer}"
    )]
    Unreachable {
        /// The rank.
        rank: usize,
        /// Its device.
        device: String,
        /// The other rank.
        peer: usize,
        /// The other's device.
        peer_device: String,
    },
    /// A rank gave too large a value to a set-up collective, which failed for all.
    #[error("{during}: rank {rank} gave {bytes} bytes, and {limit} are the most that one may give")]
    PayloadTooLarge {
        /// The rank that came first of those whose values are too large.
        rank: usize,
        /// The collective.
        during: String,
        /// The bytes given.
        bytes: usize,
        /// The most that may be given.
        limit: usize,
    },
    /// A rank could not give its file to the others.
    #[error("rank {rank} could not give its file ({during}): {reason}")]
    FileNotGiven {
        /// The rank whose file it is.
        rank: usize,
        /// The collective.
        during: String,
        /// Why not.
        reason: String,
    },
    /// A rank could not get the files of the others: its process has too many open, say.
    #[error("rank {rank} could not get the files of the others ({during}): {reason}")]
    FilesNotReceived {
        /// The lowest rank that could not.
        rank: usize,
        /// The collective.
        during: String,
        /// Why not.
        reason: String,
    },
    /// Rank 0 refused this rank.
    #[error("rank 0 refused this rank: {reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// The process at the other end of the rendezvous belongs to another user.
    #[error("the rendezvous belongs to user {theirs}, and this process to user {ours}")]
    OtherUser {
        /// The other end's user id.
        theirs: u32,
        /// This process's user id.
        ours: u32,
    },
    /// The other end of the rendezvous does not speak this protocol.
    #[error("the rendezvous broke its protocol: {detail}")]
    Protocol {
        /// What it did.
        detail: String,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Os {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl WorldError {
    /// For `map_err` on calls to the operating system.
    pub(crate) fn os<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Os {
            what,
            source: error.into(),
        }
    }
}

/// A list of ranks in words.
struct Ranks<'a>(&'a [usize]);

impl fmt::Display for Ranks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.len() == 1 { "rank " } else { "ranks " })?;
        for (i, rank) in self.0.iter().enumerate() {
            write!(f, "{}{rank}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_names_the_ranks_that_did_not_come() {
        let error = WorldError::Timeout {
            during: "barrier".into(),
            waited: Duration::from_millis(1500),
            missing: vec![1, 3],
        };
        assert_eq!(
            error.to_string(),
            "barrier: waited 1500 ms, and ranks 1, 3 did not come"
        );
    }
}
