//! What a wait that did not end says of itself.

use core::fmt;

/// Which of the protocol's words a rank waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum WordKind {
    /// A peer has begun this call, or at the gate the one before.
    Entered,
    /// A tile of a peer lies in this rank's staging.
    Ready,
    /// All that a peer stores into this rank's output has arrived.
    Gathered,
    /// A peer has added all it adds to this rank's accumulators.
    Added,
    /// A tile's spin lock.
    Lock,
    /// A peer has come to the barrier.
    Barrier,
}

impl fmt::Display for WordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Entered => "entered",
            Self::Ready => "ready",
            Self::Gathered => "gathered",
            Self::Added => "added",
            Self::Lock => "lock",
            Self::Barrier => "barrier",
        })
    }
}

/// Why a rank left a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Cause {
    /// It waited for longer than its budget.
    BudgetEnded {
        /// The budget in milliseconds.
        budget_ms: u64,
    },
    /// A peer, or this rank's own host, set the abort word while it waited or before it began.
    Aborted {
        /// Whose abort word was set; the rank itself where its host saw a peer die.
        by: usize,
    },
    /// A peer made the same call with another number of rows.
    Mismatch {
        /// This rank's rows.
        ours: u64,
        /// The peer's rows.
        theirs: u64,
    },
    /// An earlier call of the workspace faulted, and it has not been reset since.
    Poisoned,
    /// Its device failed: nothing runs there any more. Kernels never say so, only hosts do.
    DeviceFailed,
}

/// A fault: which call of which operation left, where it stood, and what it waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Fault {
    /// The operation's name.
    pub operation: &'static str,
    /// The call's index since the workspace was made or last reset.
    pub index: u64,
    /// The call's signal value.
    pub value: i64,
    /// The rank that reports.
    pub rank: usize,
    /// What it waited for, where it waited.
    pub wait: Option<Wait>,
    /// Why it left.
    pub cause: Cause,
}

/// A wait for a word that a peer writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Wait {
    /// Which word.
    pub word: WordKind,
    /// The rank that writes it.
    pub peer: usize,
    /// The tile it speaks of, where it speaks of one.
    pub tile: Option<u64>,
    /// The value waited for.
    pub expected: i64,
    /// The value last seen.
    pub seen: i64,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` of rank {}", self.word, self.peer)?;
        if let Some(tile) = self.tile {
            write!(f, " for tile {tile}")?;
        }
        write!(f, ": expected {}, seen {}", self.expected, self.seen)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, call {} (value {}), rank {}: ",
            self.operation, self.index, self.value, self.rank
        )?;
        match (self.cause, self.wait) {
            (Cause::BudgetEnded { budget_ms }, Some(wait)) => {
                write!(f, "waited {budget_ms} ms for {wait}")
            }
            (Cause::BudgetEnded { budget_ms }, None) => {
                write!(f, "its budget of {budget_ms} ms ended")
            }
            (Cause::Aborted { by }, Some(wait)) => {
                write!(f, "aborted by rank {by} while waiting for {wait}")
            }
            (Cause::Aborted { by }, None) => write!(f, "aborted by rank {by}"),
            (Cause::Mismatch { ours, theirs }, wait) => {
                write!(f, "field `m` differs: {ours} here, {theirs} on rank ")?;
                match wait {
                    Some(wait) => write!(f, "{}", wait.peer),
                    None => f.write_str("unknown"),
                }
            }
            (Cause::Poisoned, _) => f.write_str(
                "the workspace is poisoned by an earlier fault and must be reset by all ranks",
            ),
            (Cause::DeviceFailed, _) => f.write_str("the device failed"),
        }
    }
}

impl core::error::Error for Fault {}
