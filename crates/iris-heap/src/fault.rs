//! What ranks tell each other once one of them has faulted, and what they conclude.
//!
//! A kernel that ran out of budget knows whom it waited for, and no more: that rank may itself have waited for another.
//! So the hosts exchange what their ranks are doing, follow *rank waits for peer* to the first rank that is dead or waits
//! for nobody, and all report that one. Whoever asks for the [`Verdict`] of a fault gets the same one.

use iris_sync::{Cause, Fault, Wait};
use serde::{Deserialize, Serialize};
use std::fmt;

/// An [`iris_sync::Fault`] that can travel between processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The operation's name.
    pub operation: String,
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

impl From<Fault> for Report {
    fn from(fault: Fault) -> Self {
        Self {
            operation: fault.operation.to_owned(),
            index: fault.index,
            value: fault.value,
            rank: fault.rank,
            wait: fault.wait,
            cause: fault.cause,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} ", self.rank)?;
        match (self.cause, self.wait) {
            (Cause::BudgetEnded { budget_ms }, Some(_)) => write!(f, "waited {budget_ms} ms in ")?,
            (_, Some(_)) => f.write_str("waited in ")?,
            (_, None) => f.write_str("left ")?,
        }
        write!(
            f,
            "{}, call {} (value {})",
            self.operation, self.index, self.value
        )?;
        match self.wait {
            Some(wait) => write!(f, ", for {wait}"),
            None => Ok(()),
        }
    }
}

/// What a rank is doing on one operation, as its host can tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activity {
    /// It is in no call.
    Idle {
        /// The calls it has completed.
        calls: u64,
    },
    /// It is in a call, and waits for nobody.
    Busy {
        /// The call.
        index: u64,
    },
    /// It waits.
    Waiting(Report),
    /// It has left a call with a fault.
    Faulted(Report),
}

impl Activity {
    /// The report it carries.
    pub(crate) fn report(&self) -> Option<&Report> {
        match self {
            Self::Waiting(report) | Self::Faulted(report) => Some(report),
            Self::Idle { .. } | Self::Busy { .. } => None,
        }
    }
}

/// An operation that can be told to stop, and asked what it is doing.
///
/// Both functions are called from threads of the world's own, at any time, and must not block: `abort` sets a word that
/// the waiting kernel looks at, `activity` reads words that the kernel writes.
pub trait Watched: Send + Sync {
    /// Makes whatever waits on this rank leave soon. `by` is the rank whose death or fault is the reason.
    fn abort(&self, by: usize);
    /// What this rank is doing.
    fn activity(&self) -> Activity;
}

/// The number of a watched operation, the same on all ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(pub(crate) u64);

/// Why a rank is the culprit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Reason {
    /// It is dead.
    Died,
    /// It has left the world.
    Left,
    /// It is in no call.
    NotCalling {
        /// The calls it has completed.
        calls: u64,
    },
    /// It has dropped the operation.
    Dropped,
    /// Its device has failed. What with, the rank itself has been told.
    DeviceFailed,
    /// It is in a call, and waits for nobody.
    Busy {
        /// The call.
        index: u64,
    },
    /// Its host did not answer.
    NoAnswer,
    /// It waits for a rank that waits, through others or not, for it.
    Cycle,
    /// It made the same call with another number of rows.
    Mismatch {
        /// The rank that found it.
        rank: usize,
        /// The culprit.
        peer: usize,
        /// The rows of `rank`.
        ours: u64,
        /// The rows of `peer`.
        theirs: u64,
    },
}

/// The rank at fault, why, and who missed it. The same on every rank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The rank at fault.
    pub culprit: usize,
    /// Why.
    pub reason: Reason,
    /// What the rank that waits for the culprit reports.
    pub report: Report,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let culprit = self.culprit;
        match &self.reason {
            Reason::Died => write!(f, "rank {culprit} died")?,
            Reason::Left => write!(f, "rank {culprit} left the world")?,
            Reason::NotCalling { calls } => {
                let s = if *calls == 1 { "" } else { "s" };
                write!(f, "rank {culprit} stopped calling after {calls} call{s}")?;
            }
            Reason::Dropped => write!(f, "rank {culprit} has dropped the operation")?,
            Reason::DeviceFailed => write!(f, "the device of rank {culprit} failed")?,
            Reason::Busy { index } => write!(f, "rank {culprit} is still at work in call {index}")?,
            Reason::NoAnswer => write!(f, "rank {culprit} does not answer")?,
            Reason::Cycle => write!(
                f,
                "rank {culprit} and the ranks it waits for wait in a circle"
            )?,
            Reason::Mismatch {
                rank,
                peer,
                ours,
                theirs,
            } => {
                let Report {
                    operation,
                    index,
                    value,
                    ..
                } = &self.report;
                return write!(
                    f,
                    "field `m` differs in {operation}, call {index} (value {value}): {ours} on rank {rank}, {theirs} on rank {peer}"
                );
            }
        }
        write!(f, ": {}", self.report)
    }
}

impl std::error::Error for Verdict {}
