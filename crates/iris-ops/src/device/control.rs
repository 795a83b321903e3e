//! What host and kernels of one operation tell each other: a fault record, and a word by which the host asks kernels to leave.

use iris_heap::Report;
use iris_heap::device::{Device, DeviceError, Driver, PinnedMemory};
use iris_kernels::device::FaultRecord;
use iris_sync::{Cause, Wait, WordKind};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering, fence};

/// Where the abort word lies: in a line of its own.
const ABORT: usize = 256;
const BYTES: usize = 512;

/// Host memory that both sides look at.
///
/// Invariant: a [`FaultRecord`] lies at the start, and an `i32` at [`ABORT`]. The record is written by one thread of the device,
/// before `state` becomes 1, and then not until it has been cleared; the word is written by the host alone.
#[derive(Debug)]
pub(super) struct Control<D: Driver> {
    memory: PinnedMemory<D>,
}

impl<D: Driver> Control<D> {
    pub(super) fn new(device: &Device<D>) -> Result<Self, DeviceError> {
        const { assert!(size_of::<FaultRecord>() <= ABORT) };
        Ok(Self {
            memory: PinnedMemory::new(device, BYTES)?,
        })
    }

    /// Where kernels see the record.
    pub(super) fn fault_address(&self) -> u64 {
        self.memory.address()
    }

    /// Where kernels see the abort word.
    pub(super) fn abort_address(&self) -> u64 {
        self.memory.address() + ABORT as u64
    }

    fn abort_word(&self) -> &AtomicI32 {
        // SAFETY: by the invariant an `i32` lies there, aligned, which is only accessed atomically, as long as the memory lives.
        unsafe { &*self.memory.host().add(ABORT).cast::<AtomicI32>() }
    }

    fn state(&self) -> &AtomicU64 {
        // SAFETY: `state` is the record's first field, aligned, and the host accesses it atomically only.
        unsafe { &*self.memory.host().cast::<AtomicU64>() }
    }

    /// Asks kernels to leave, on behalf of rank `by`.
    pub(super) fn abort(&self, by: usize) {
        let word = i32::try_from(by).unwrap_or(i32::MAX - 1) + 1;
        // The first who asked is the one that is told.
        let _ = self
            .abort_word()
            .compare_exchange(0, word, Ordering::Release, Ordering::Relaxed);
    }

    /// What a kernel left behind, if one faulted.
    pub(super) fn record(&self) -> Option<FaultRecord> {
        if self.state().load(Ordering::Acquire) == 0 {
            return None;
        }
        fence(Ordering::SeqCst);
        // SAFETY: by the invariant the device has written all of the record, and does not write it again.
        Some(unsafe { self.memory.host().cast::<FaultRecord>().read_volatile() })
    }

    /// Forgets both. No kernel is under way.
    pub(super) fn clear(&self) {
        self.abort_word().store(0, Ordering::Release);
        self.state().store(0, Ordering::Release);
    }
}

/// The record as ranks tell it each other. Numbers are those of `hip/iris/args.h`.
pub(super) fn report(operation: &str, record: &FaultRecord) -> Report {
    let cause = match record.cause {
        0 => Cause::BudgetEnded {
            budget_ms: record.other / 1_000_000,
        },
        1 => Cause::Aborted {
            by: record.other as usize,
        },
        2 => Cause::Mismatch {
            ours: record.ours,
            theirs: record.other,
        },
        _ => Cause::Poisoned,
    };
    let wait = (record.waited != 0).then(|| Wait {
        word: match record.word {
            0 => WordKind::Entered,
            1 => WordKind::Ready,
            2 => WordKind::Gathered,
            3 => WordKind::Added,
            4 => WordKind::Lock,
            _ => WordKind::Barrier,
        },
        peer: record.peer as usize,
        tile: (record.tile != u64::MAX).then_some(record.tile),
        expected: record.expected as i64,
        seen: record.seen as i64,
    });
    Report {
        operation: operation.to_owned(),
        index: record.index,
        value: record.value as i64,
        rank: record.rank as usize,
        wait,
        cause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_becomes_the_report_it_means() {
        let record = FaultRecord {
            state: 1,
            operation: 0,
            index: 6,
            value: 7,
            rank: 1,
            cause: 0,
            waited: 1,
            word: 1,
            peer: 2,
            tile: 9,
            expected: 7,
            seen: 5,
            other: 1_500_000_000,
            ours: 64,
        };
        let text = report("matmul_all_reduce", &record).to_string();
        assert_eq!(
            text,
            "rank 1 waited 1500 ms in matmul_all_reduce, call 6 (value 7), for `ready` of rank 2 for tile 9: expected 7, seen 5"
        );
        let aborted = FaultRecord {
            cause: 1,
            waited: 0,
            other: 3,
            ..record
        };
        let left = report("x", &aborted);
        assert_eq!(left.cause, Cause::Aborted { by: 3 });
        assert_eq!(left.wait, None);
        let words = [
            WordKind::Entered,
            WordKind::Ready,
            WordKind::Gathered,
            WordKind::Added,
            WordKind::Lock,
            WordKind::Barrier,
        ];
        for (word, kind) in words.into_iter().enumerate() {
            let word = word as u64;
            let wait = report("x", &FaultRecord { word, ..record }).wait;
            assert_eq!(wait.map(|wait| wait.word), Some(kind), "word {word}");
        }
        let mismatch = FaultRecord { cause: 2, ..record };
        let (ours, theirs) = (64, 1_500_000_000);
        let cause = report("x", &mismatch).cause;
        assert_eq!(cause, Cause::Mismatch { ours, theirs });
        let poisoned = FaultRecord { cause: 3, ..record };
        assert_eq!(report("x", &poisoned).cause, Cause::Poisoned);
    }
}
