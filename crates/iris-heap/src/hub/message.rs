//! What the hub and the processes of the other ranks say to each other.

use crate::WorldError;
use crate::fault::{Activity, Report, Verdict};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The first word of a handshake.
pub(crate) const MAGIC: &str = "iris-world";
/// The version of these messages.
pub(crate) const VERSION: u32 = 3;
/// The most bytes that one rank may give to a collective.
pub(crate) const MAX_PAYLOAD: usize = 1 << 20;

/// From a rank's process to the hub.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ToHub {
    /// The first message of a connection.
    Hello {
        magic: String,
        version: u32,
        size: usize,
        rank: usize,
    },
    /// A collective's turn; the payload, unless it is withheld, follows as the frame's blob.
    Exchange {
        seq: u64,
        collective: String,
        file: Given,
    },
    /// The sender has waited long enough for a collective.
    GiveUp { seq: u64, waited_ms: u64 },
    /// The sender asks for the verdict of a fault.
    Ask { id: u64, epoch: u64, own: Report },
    /// What the sender's rank is doing.
    Answer { inquiry: u64, answer: Answer },
    /// The sender's rank has reset the operation.
    Clear { id: u64 },
    /// The sender leaves in good order.
    Goodbye,
}

/// The file that a rank gives to a collective.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Given {
    Nothing,
    /// It comes with the frame.
    File,
    /// Neither it nor the payload comes.
    Withheld(Withheld),
}

/// Why a rank gives nothing to a collective that it has come to, which fails for all then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Withheld {
    /// Its payload has more bytes than one rank may give.
    TooLarge { bytes: usize },
    /// There should be a file, and it cannot be given to the hub.
    File { reason: String },
}

/// From the hub to a rank's process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum FromHub {
    /// The handshake is accepted; the heap's file comes with it.
    Welcome { heap_bytes: usize },
    /// The handshake is refused.
    Refused { reason: String },
    /// A collective is complete; the payloads follow as the frame's blob. `files` are the ranks that gave a file, in
    /// order: they come with the frame, but for the receiver's own.
    Gathered {
        seq: u64,
        lens: Vec<usize>,
        files: Vec<usize>,
    },
    /// A collective has failed.
    Failed { seq: u64, failure: Failure },
    /// A rank is dead.
    Died { rank: usize },
    /// A rank has left.
    Left { rank: usize },
    /// What is your rank doing?
    Inquire { inquiry: u64, id: u64, by: usize },
    /// The verdict that was asked for.
    Judged {
        id: u64,
        epoch: u64,
        verdict: Verdict,
    },
}

/// A rank's answer to an inquiry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// No operation of that number is watched.
    Dropped,
    /// What it is doing.
    Doing(Activity),
}

/// Why a collective failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure {
    Died {
        rank: usize,
    },
    Left {
        rank: usize,
    },
    Timeout {
        waited_ms: u64,
        missing: Vec<usize>,
    },
    Mismatch {
        rank: usize,
        theirs: String,
        other_rank: usize,
        ours: String,
    },
    /// `rank` has come and given nothing.
    NotGiven {
        rank: usize,
        why: Withheld,
    },
    /// The files of the others could not be passed to `rank`, which alone is told so.
    NotReceived {
        rank: usize,
        reason: String,
    },
}

impl Failure {
    /// As the error of the collective `during`.
    pub(crate) fn into_error(self, during: &str) -> WorldError {
        let during = during.to_owned();
        match self {
            Self::Died { rank } => WorldError::RankDied { rank, during },
            Self::Left { rank } => WorldError::RankLeft { rank, during },
            Self::Timeout { waited_ms, missing } => WorldError::Timeout {
                during,
                waited: Duration::from_millis(waited_ms),
                missing,
            },
            Self::Mismatch {
                rank,
                theirs,
                other_rank,
                ours,
            } => WorldError::CollectiveMismatch {
                rank,
                theirs,
                other_rank,
                ours,
            },
            Self::NotGiven { rank, why } => match why {
                Withheld::TooLarge { bytes } => WorldError::PayloadTooLarge {
                    rank,
                    during,
                    bytes,
                    limit: MAX_PAYLOAD,
                },
                Withheld::File { reason } => WorldError::FileNotGiven {
                    rank,
                    during,
                    reason,
                },
            },
            Self::NotReceived { rank, reason } => WorldError::FilesNotReceived {
                rank,
                during,
                reason,
            },
        }
    }
}
